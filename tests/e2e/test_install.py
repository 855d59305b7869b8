"""The wheel stands alone: its own conf/, launcher and data, found from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel's files, as pip would lay them out."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run(build, check=True, capture_output=True, text=True, timeout=120)
    (wheel,) = folder.glob("bertpar-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run_installed(unpacked: Path, folder: Path, code: str, *arguments: str) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BERTPAR_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(unpacked), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_configuration_launcher_and_data(unpacked: Path) -> None:
    shipped = {str(p.relative_to(ROOT / "conf")) for p in (ROOT / "conf").rglob("*.yaml")}
    assert {str(p.relative_to(unpacked / "bertpar/conf")) for p in (unpacked / "bertpar/conf").rglob("*")} >= shipped
    assert (unpacked / "hydra_plugins" / "bertpar_launcher.py").is_file()
    assert not (unpacked / "hydra_plugins" / "__init__.py").exists()  # one would hide other packages' plugins
    assert (unpacked / "bertpar" / "data" / "movie_reviews.tsv.gz").is_file()
    assert (unpacked / "bertpar" / "data" / "MOVIE_REVIEWS.md").is_file()


def test_an_installed_program_uses_its_own_configuration_and_launcher(unpacked: Path, tmp_path: Path) -> None:
    (unpacked / "bertpar/conf/optim/mine.yaml").write_text("defaults: [adamw]\nweight_decay: 0.125\n")
    train = "from bertpar.launch import main; main()"
    assert "weight_decay: 0.125" in run_installed(unpacked, tmp_path, train, "optim=mine", "--cfg", "job")
    launcher = run_installed(unpacked, tmp_path, train, "--cfg", "hydra", "--package", "hydra.launcher")
    assert "hydra_plugins.bertpar_launcher.BertparLauncher" in launcher
    where = "import hydra_plugins.bertpar_launcher as launcher; print(launcher.__file__)"
    assert run_installed(unpacked, tmp_path, where).startswith(str(unpacked))


def test_an_installed_program_keeps_its_state_in_the_users_home(unpacked: Path, tmp_path: Path) -> None:
    home = run_installed(unpacked, tmp_path, "from bertpar import paths; print(paths.home().root)")
    assert home.strip() == str(tmp_path / ".bertpar")
