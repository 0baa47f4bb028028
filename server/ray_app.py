"""The server as replicas under Ray Serve: `serve run server.ray_app:app` where `ray[serve]` is installed; optional.

Each replica opens the home that the environment names; several need PostgreSQL and one folder for keys and store, and
workers that run elsewhere (`facsimile serve --workers N`). It does not know what Ray's own proxy takes from the
network: the limits of connections and headers are that proxy's, so a TLS proxy with limits of its own stands in front.
Rates and the pictures of the latest reports are each replica's.
"""

import os

from fastapi import FastAPI
from ray import serve

NUM_REPLICAS = int(os.environ.get("FACSIMILE_REPLICAS", "2"))


def build() -> FastAPI:
    """The app of one replica; it opens the home for as long as the replica lives."""
    from server.app import create_app
    from server.commands.serve import allowed_hosts
    from server.deps import open_home
    from server.settings import ServeSettings

    url = os.environ.get("FACSIMILE_BASE_URL", "http://127.0.0.1:8000")
    return create_app(
        open_home(), ServeSettings(base_url=url, allowed_hosts=allowed_hosts(url), num_workers=0)
    )


app = serve.deployment(
    name="facsimile",
    num_replicas=NUM_REPLICAS,
    max_ongoing_requests=100,
    ray_actor_options={"num_cpus": 1},
)(serve.ingress(build)()).bind()
