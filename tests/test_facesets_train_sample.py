"""`facsimile train sample` run whole at the smallest size, by its command: statistics, refiner, weights, a person."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from facesets.portraits import REFINER_FILE, STATISTICS_FILE, PortraitModel
from server.cli import build_app


@pytest.mark.shared
def test_the_command_makes_a_model_that_draws_and_goes_on(tmp_path: Path, shared_folder: Path) -> None:
    command = ["train", "sample", "--data", str(shared_folder / "data"), "--out", str(tmp_path)]
    options = ["--quick", "--minutes", "0.1", "--threads", "1"]
    first = CliRunner().invoke(build_app(), [*command, *options])
    assert first.exit_code == 0, first.output
    model = PortraitModel.load(tmp_path / "sample")
    assert len(model.components) == 16
    (nobody,) = model.draw(3, 1)
    portrait = model.render(nobody)
    assert model.refiner is not None
    assert portrait.rgb.shape == (256, 256, 3)
    assert portrait.rgb.std() > 10
    fitted, trained = tmp_path / "sample" / STATISTICS_FILE, tmp_path / "sample" / REFINER_FILE
    made = fitted.stat().st_mtime_ns
    again = CliRunner().invoke(build_app(), [*command, *options, "--resume"])
    assert again.exit_code == 0, again.output
    assert "resumed at step" in again.output
    assert fitted.stat().st_mtime_ns == made
    assert trained.stat().st_mtime_ns > made
