"""Fault points: silent unless ordered, obeyed once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from bertpar import faults

ARRIVE_THRICE = "from bertpar import faults\nfor i in range(3): print(i, flush=True); faults.reach('door')"


def arrive_thrice(folder: Path | None) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != faults.VARIABLE}
    if folder is not None:
        env[faults.VARIABLE] = str(folder)
    return subprocess.run([sys.executable, "-c", ARRIVE_THRICE], env=env, capture_output=True, text=True, check=False)


def test_a_point_without_orders_does_nothing(tmp_path: Path) -> None:
    assert arrive_thrice(None).stdout.split() == ["0", "1", "2"]
    assert arrive_thrice(tmp_path).stdout.split() == ["0", "1", "2"]


def test_orders_are_obeyed_in_turn_and_once(tmp_path: Path) -> None:
    faults.order(tmp_path, "door", "pass", "kill")
    faults.order(tmp_path, "door.inner", "kill")
    first = arrive_thrice(tmp_path)
    assert (first.returncode, first.stdout.split()) == (-signal.SIGKILL, ["0", "1"])
    assert arrive_thrice(tmp_path).returncode == 0
