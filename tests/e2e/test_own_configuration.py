"""Settings in a folder of one's own, as docs/add-data-and-models.md shows them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, User

PACKAGE_LINE = "# @package _global_\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `my_conf` with the documented `experiment/mine.yaml`."""
    page = (ROOT / "docs" / "add-data-and-models.md").read_text()
    folder = tmp_path / "my_conf"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    return folder


def train(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return User(tmp_path / "home").run(sys.executable, "train.py", *arguments, check=False)


def test_the_documented_file_is_chosen_as_documented(tmp_path: Path, folder: Path) -> None:
    done = train(tmp_path, "--config-dir", str(folder), "experiment=mine", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "lr: 0.0003" in done.stdout
    assert "name: tiny" in done.stdout
    assert "max_epochs: 1" in done.stdout


def test_a_plus_before_a_group_that_has_its_place_is_refused_with_the_form_that_works(
    tmp_path: Path, folder: Path
) -> None:
    done = train(tmp_path, "--config-dir", str(folder), "+experiment=mine")
    assert done.returncode == 2
    assert done.stderr.startswith("error: +experiment=mine: experiment has a place in the configuration already.")
    assert done.stderr.endswith("Leave out the +: experiment=mine\n")


@pytest.mark.parametrize("with_defaults", [True, False])
def test_a_file_without_its_package_line_is_told_so(tmp_path: Path, folder: Path, with_defaults: bool) -> None:
    file = folder / "experiment" / "mine.yaml"
    text = file.read_text()
    assert text.startswith(PACKAGE_LINE)
    file.write_text(text.removeprefix(PACKAGE_LINE) if with_defaults else "lr: 3e-4\n")
    done = train(tmp_path, "--config-dir", str(folder), "experiment=mine")
    assert done.returncode == 2
    assert done.stderr.startswith("error: experiment: the experiment's file does not begin with the line")
    assert PACKAGE_LINE.strip() in done.stderr
