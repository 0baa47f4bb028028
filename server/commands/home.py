"""`init` and `doctor`: a home is made, or looked over; makes no picture."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from provenance import __version__
from server.console import Json, emit, report_errors, say, table
from server.settings import Settings, read_settings

LIBRARIES = (
    "torch",
    "numpy",
    "opencv-python",
    "pillow",
    "c2pa-python",
    "cryptography",
    "sqlalchemy",
    "joserfc",
)


def add_to(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("doctor")(doctor)


@report_errors
def init(
    organisation: Annotated[
        str, typer.Option(help="Name in the certificates and the ledger.")
    ] = "Development",
    jurisdiction: Annotated[
        str, typer.Option(help="Where outputs are used: ISO 3166 code, EU, WORLD.")
    ] = "WORLD",
    json_output: Json = False,
) -> None:
    """Make keys, a development certificate chain and the ledger; refuses to overwrite."""
    from provenance.home import Home

    settings = read_settings()
    with Home.create(
        settings.home, organisation, jurisdiction=jurisdiction, database_url=settings.database_url
    ) as home:
        payload = {"home": str(settings.home), "organisation": organisation, "deployment": home.deployment}
    if json_output:
        emit(payload)
        return
    say(f"Made a home for {organisation} in {settings.home}.")
    say("Its certificate chain is for development: others' tools will call the signer unknown.")


@report_errors
def doctor(json_output: Json = False) -> None:
    """Show versions, the device really used, weights and hashes, ledger health, disk."""
    from importlib import metadata

    settings = read_settings()
    payload: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "device": _device(),
        "weights": _weights(),
        "home": str(settings.home),
        "ledger": _ledger(settings),
        "disk_free_gb": round(shutil.disk_usage(_existing(settings.home)).free / 1e9, 1),
    }
    if json_output:
        emit(payload)
        return
    rows = [(key, value) for key, value in payload.items() if not isinstance(value, (dict, list))]
    rows += [(f"library {name}", version) for name, version in payload["libraries"].items()]
    rows += [(f"weights {row['name']}", f"{row['state']} {row['sha256'][:12]}") for row in payload["weights"]]
    rows += [(f"ledger {name}", value) for name, value in payload["ledger"].items()]
    table(("what", "state"), rows)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu, {torch.get_num_threads()} threads (no CUDA device found)"


def _weights() -> list[dict[str, str]]:
    from detector import weights as detector_weights
    from fusion.weights import REGISTRY, WEIGHTS_FOLDER, verify_file
    from provenance.errors import WeightsError

    rows = []
    shipped = [(spec, WEIGHTS_FOLDER) for spec in REGISTRY.values()]
    for spec, folder in [*shipped, (detector_weights.DETECTOR, detector_weights.WEIGHTS_FOLDER)]:
        try:
            verify_file(spec, folder)
            state = "sound"
        except WeightsError as error:
            state = f"{error.code}: {error.cause}"
        rows.append({"name": spec.name, "state": state, "sha256": spec.sha256})
    return rows


def _ledger(settings: Settings) -> dict[str, object]:
    from provenance.errors import FacsimileError
    from provenance.fsck import verify
    from provenance.home import Home

    try:
        with Home.open(settings.home, settings.database_url, pin=settings.pin) as home:
            report = verify(home)
            return {
                "state": "sound" if report.ok else "broken",
                "leaves": report.size,
                "root": report.root,
                "certificate until": home.keys.expires_at.date().isoformat(),
            }
    except FacsimileError as error:
        return {"state": f"{error.code}: {error.cause}", "next": error.next_step}


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
