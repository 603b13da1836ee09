"""Score many rows: read a manifest, ask an engine, write parts; every row exactly once, whatever is killed.

row        what a reader found, and where its bytes are
records    the shapes of a row in a manifest, to a Row
readers    JSONL, CSV, Parquet, a folder, tar shards: records, one after the other
inputs     which files, of which kind, and what tells that they changed
engine     the seam: rows in, outcomes out
local      a bundle here                              remote  a server
cluster    a bundle on every machine of a Ray cluster  wire    rows and outcomes on their way there and back
engines    options to an engine
columns    an outcome as an output row                parts  rows as files of one format
ledger     what is finished, on disk                  run    the loop
command    `trichord score`
"""
