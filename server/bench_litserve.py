"""LitServe as a peer: the same check behind another server, to lay their rates side by side; no part of the suite.

It answers on the same path with the verdict alone: no key, no ledger of jobs, no limits. Run as
`python -m server.bench_litserve HOME PORT` where the package `litserve` is installed; nothing else needs it.
"""

import sys
from pathlib import Path

import litserve
from fastapi import Request

NUM_WORKERS = 2
"""As many as the server has places for checks."""


class Peer(litserve.LitAPI):  # type: ignore[misc]
    """One worker process with its own copy of the networks."""

    def __init__(self, home: str) -> None:
        super().__init__(api_path="/v1/checks")
        self._home = home

    def setup(self, device: str) -> None:
        """Load what the server loads."""
        from detector.check import Checker, shipped_scorer
        from provenance.home import Home
        from server.service import UPLOAD_LIMITS

        self._checker = Checker(Home.open(Path(self._home)), shipped_scorer(), limits=UPLOAD_LIMITS)

    def decode_request(self, request: Request) -> bytes:
        """The form's file. LitServe reads the annotation, and hands in the form itself."""
        return bytes(request["file"].file.read())

    def predict(self, x: bytes) -> str:
        """The verdict."""
        return self._checker.check(x, "picture").verdict.value

    def encode_response(self, output: str) -> dict[str, str]:
        """As JSON."""
        return {"verdict": output}


if __name__ == "__main__":
    litserve.LitServer(Peer(sys.argv[1]), accelerator="cpu", workers_per_device=NUM_WORKERS, timeout=120).run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False
    )
