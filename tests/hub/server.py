"""A Hugging Face Hub on this machine: real HTTP for the real clients, with faults on request.

The endpoints are those that huggingface_hub uses to publish and to load models. Start it by hand with
`python -m tests.hub.server FOLDER` and point HF_ENDPOINT to the address that it prints.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path

from tests.hub.store import Store

USER, ORGANIZATION = "ada", "lab"


@dataclass
class Fault:
    """Something that goes wrong at one endpoint: `kind` at the calls `first` to `first + times - 1`."""

    endpoint: str
    kind: str
    times: int = 1
    first: int = 1
    seconds: float = 0.5
    seen: int = 0

    def due(self, endpoint: str) -> bool:
        """Whether this call of `endpoint` is one that goes wrong; counts it."""
        if endpoint != self.endpoint:
            return False
        self.seen += 1
        return self.first <= self.seen < self.first + self.times


@dataclass
class Hub:
    """The running server: its store, the faults to come, and what was asked of it."""

    store: Store
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, endpoint: str) -> Fault | None:
        """The fault that this call of `endpoint` meets, if any."""
        with self.lock:
            return next((fault for fault in self.faults if fault.due(endpoint)), None)


@contextmanager
def serving(
    folder: Path, *, tokens: dict[str, str] | None = None, host: str = "127.0.0.1"
) -> Iterator[Hub]:
    """A Hub that keeps its state in `folder`; `tokens` maps each to its role, write or read."""
    from tests.hub.handler import handler

    hub = Hub(Store(folder), tokens=tokens or {"hf_write": "write", "hf_read": "read"})
    server = ThreadingHTTPServer((host, 0), handler(hub))
    server.daemon_threads = True
    hub.address = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Serves until interrupted."""
    with serving(Path(sys.argv[1])) as hub:
        print(f"HF_ENDPOINT={hub.address} HF_HUB_DISABLE_XET=1 HF_TOKEN=hf_write", flush=True)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
