"""Named points of the code at which a test can have the process that reaches them die.

Nothing happens unless the environment variable BERTPAR_FAULTS names a folder. A file `POINT.N` in it is an order,
its content the action; whoever reaches POINT takes the order with the lowest number, exactly once among all processes:

    kill    the process is killed, as by kill -9
    stop    the process is stopped, as by kill -STOP
    pass    nothing: the orders `pass`, `pass`, `kill` kill at the third arrival
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

VARIABLE = "BERTPAR_FAULTS"
ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def reach(point: str) -> None:
    """Say that `point` is reached, and carry out the next order for it, if there is one."""
    if folder := os.environ.get(VARIABLE):
        _obey(Path(folder), point)


def order(folder: Path, point: str, *actions: str) -> None:
    """Give orders for the next arrivals at `point`, one for each, in this order."""
    start = max((_number(path) for path in _orders(folder, point)), default=0) + 1
    for number, action in enumerate(actions, start):
        unfinished = folder / f".{point}.{number}"
        unfinished.write_text(action, encoding="utf-8")
        unfinished.rename(folder / f"{point}.{number}")


def _obey(folder: Path, point: str) -> None:
    for path in _orders(folder, point):
        taken = folder / f"taken-{path.name}-by-{os.getpid()}"
        with suppress(FileNotFoundError):  # another process took it
            path.rename(taken)
            action = taken.read_text(encoding="utf-8")
            if action in ACTIONS:
                os.kill(os.getpid(), ACTIONS[action])
            return


def _orders(folder: Path, point: str) -> list[Path]:
    found = (path for path in folder.glob(f"{point}.*") if path.stem == point)  # points have dots of their own
    return sorted(found, key=_number)


def _number(path: Path) -> int:
    return int(path.suffix[1:])
