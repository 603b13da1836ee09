"""The real client of the protocol, and requests made by hand for what it would never send."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tritonclient.http as triton

from tests.server import Server


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as connected:
        yield connected
