"""The server. A folder is a floor, a floor adds one heavy library, and imports point down.

    api      FLOOR 3   HTTP                                   + fastapi
    serving  FLOOR 2   many requests, many bundles            + asyncio
    runtime  FLOOR 1   run one bundle, synchronously          + onnxruntime
    bundle   FLOOR 0   what a bundle is, what bytes mean      numpy, pillow, soundfile, tokenizers, …

    score    beside serving and api: many rows from files through a bundle or a server      + httpx2, pyarrow

`cli` starts processes, `settings` reads the environment, `metrics` names every series, `logs` formats
the log. `client` asks a server and imports nothing of all this. Nothing here imports torch, onnx or
`training`; `make check` and a test hold it to that.
"""
