"""The server as replicas under Ray Serve; skipped, and said so, where Ray is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from conftest import ROOT, Studio
from serving import serve as serve_here

from provenance.home import Home
from server import auth
from server.bench_process import free_port

ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def place(studio: Studio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Where two replicas answer."""
    url = f"http://127.0.0.1:{free_port()}"
    for name, value in {
        "FACSIMILE_HOME": str(studio.home_path), "FACSIMILE_BASE_URL": url, "FACSIMILE_REPLICAS": "2",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'datasets'}", "RAY_USAGE_STATS_ENABLED": "0",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    from ray import serve

    options = {"num_cpus": 3, "object_store_memory": 100 << 20, "include_dashboard": False}
    ray.init(**options, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(url.rsplit(":", 1)[1])})
    from server.ray_app import app

    serve.run(app, name="facsimile", route_prefix="/")
    yield url
    serve.shutdown()
    ray.shutdown()


def test_replicas_answer_as_one_server(place: str, studio: Studio) -> None:
    with Home.open(studio.home_path) as home:
        with serve_here(home):
            key, _ = auth.make_key(home.database, ["verifier"], "test")
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=place, headers=headers, timeout=120) as client:
            assert client.get("/healthz").json() == {"status": "ok"}
            data = studio.people[0].path.read_bytes()
            made = [client.post("/v1/checks", files={"file": ("p", data)}) for _ in range(4)]
            assert {each.json()["verdict"] for each in made} == {"declared_synthetic"}
            listed = client.get("/v1/checks").json()["items"]
            assert {each["id"] for each in listed} == {each.json()["id"] for each in made}
            refused = client.post("/v1/checks", files={"file": ("p", b"GIF89a")})
            assert (refused.status_code, refused.json()["code"]) == (415, "media.format")
            assert httpx.get(f"{place}/v1/me").status_code == 401
