"""The environments of the peers: each in a folder of its own, made once, on top of this project's packages.

What a peer needs beside torch, transformers and datasets is installed into its own environment; those three (gigabytes)
are found in this project's, behind its own packages on the path. So both sides compute with the same torch.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from hashlib import sha256
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
ENVIRONMENTS = Path(__file__).parent / ".environments"


def environment_of(name: str) -> Path:
    """Return the Python of the environment for `peers/NAME.txt`, made if need be."""
    requirements, folder = PEERS / f"{name}.txt", ENVIRONMENTS / name
    ours = sysconfig.get_paths()["purelib"]
    stamp, wanted = folder / "stamp", sha256(f"{sys.version} {ours} {requirements.read_text()}".encode()).hexdigest()
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"setting up {folder} from {requirements.name}", file=sys.stderr)
        venv.create(folder, clear=True, symlinks=True)
        # a plain path: editable installs, and with them bertpar's Hydra plugin, are not found through it
        (_packages_of(python) / "project.pth").write_text(f"{ours}\n")
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "--requirement", str(requirements)], check=True)
        stamp.write_text(wanted)
    return python


def is_ready(name: str) -> bool:
    """Say whether the environment is there, so that using it installs nothing."""
    return (ENVIRONMENTS / name / "stamp").exists()


def _packages_of(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
