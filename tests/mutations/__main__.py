"""Removes each protection in turn and shows that a test turns red: `scripts/mutation_check [NAME ...]`."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.mutations.protection import Protection
from tests.mutations.protections import PROTECTIONS

ROOT = Path(__file__).parents[2]
_LIMIT_SECONDS = 180.0
_TESTS_FAILED = 1
"""pytest's exit code; others mean that there were no tests, or none that could begin."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the tests of one protection said without it."""

    name: str
    is_red: bool
    said: str
    """The first test that failed, or why none did."""
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/mutation_check", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="Parts of the names of protections. Default: all.")
    parser.add_argument("--list", action="store_true", help="List the protections, and remove none.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Also write the outcomes to FILE.")
    parser.add_argument("-j", type=int, default=2, metavar="N", help="How many at once. Default: %(default)s.")
    arguments = parser.parse_args()
    chosen = [p for p in PROTECTIONS if not arguments.names or any(name in p.name for name in arguments.names)]
    if not chosen:
        parser.error(f"no protection is named like {' or '.join(arguments.names)}; --list shows all")
    for protection in chosen:
        if (count := _source(ROOT, protection).read_text(encoding="utf-8").count(protection.code)) != 1:
            parser.error(f"{protection.name}: its code is {count} times in src/bertpar/{protection.file}, not once")
    if arguments.list:
        print(*(f"{p.name}  (src/bertpar/{p.file})\n    {p.protects}" for p in chosen), sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="bertpar-mutations-") as folder:
        _require_green(Path(folder), chosen)
        with ThreadPoolExecutor(arguments.j) as pool:
            outcomes = []
            for outcome in pool.map(partial(_try_without, Path(folder)), chosen):
                outcomes.append(outcome)
                colour = "red  " if outcome.is_red else "GREEN"
                print(f"{colour} {outcome.seconds:4.0f} s  {outcome.name}: {outcome.said}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(outcome) for outcome in outcomes], indent=1), encoding="utf-8")
    num_green = sum(not outcome.is_red for outcome in outcomes)
    print(f"{len(outcomes) - num_green} of {len(outcomes)} protections are missed when they are gone")
    return int(num_green > 0)


def _require_green(folder: Path, chosen: Sequence[Protection]) -> None:
    """Leave with an error unless all tests pass while nothing is removed."""
    tree = _copy_tree(folder / "whole")
    _require_own_source(tree)
    tests = dict.fromkeys(test for protection in chosen for test in protection.tests)
    done = _run_tests(tree, list(tests), limit_seconds=10 * _LIMIT_SECONDS)
    if done.returncode != 0:
        raise SystemExit(f"error: with every protection in place the tests are not green:\n{done.stdout[-4000:]}")
    print(f"{len(tests)} tests are green while nothing is removed", flush=True)


def _require_own_source(tree: Path) -> None:
    """Leave with an error if what is changed in a copy of the tree would not be what its tests import."""
    command = [sys.executable, "-c", "import bertpar; print(bertpar.__file__)"]
    imported = subprocess.run(command, cwd=tree, env=_environment(tree), capture_output=True, text=True, check=True)
    if not Path(imported.stdout.strip()).is_relative_to(tree):
        raise SystemExit(f"error: in {tree} bertpar is imported from {imported.stdout.strip()}")


def _try_without(folder: Path, protection: Protection) -> Outcome:
    started = time.monotonic()
    tree = _copy_tree(folder / re.sub(r"\W+", "-", protection.name))
    source = _source(tree, protection)
    source.write_text(source.read_text(encoding="utf-8").replace(protection.code, protection.instead), encoding="utf-8")
    try:
        done = _run_tests(tree, protection.tests, limit_seconds=_LIMIT_SECONDS)
        failure = _first_failure(done.stdout)
        is_red, said = done.returncode == _TESTS_FAILED and failure is not None, failure or _last_line(done.stdout)
    except subprocess.TimeoutExpired:
        is_red, said = True, f"the tests do not end within {_LIMIT_SECONDS:.0f} s"
    _kill_leftovers(tree)
    shutil.rmtree(tree, ignore_errors=True)
    return Outcome(name=protection.name, is_red=is_red, said=said, seconds=time.monotonic() - started)


def _copy_tree(target: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def _run_tests(tree: Path, tests: Sequence[str], *, limit_seconds: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests)]
    return subprocess.run(
        command, cwd=tree, env=_environment(tree), capture_output=True, text=True, timeout=limit_seconds, check=False
    )


def _kill_leftovers(tree: Path) -> None:
    """Kill what was started with the tree's source and still lives, as it may without the protection."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(tree / "src") in process.environ().get("PYTHONPATH", "").split(os.pathsep):
                process.kill()


def _environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


def _first_failure(printed: str) -> str | None:
    """Return the first test that failed; a file that cannot be imported is none."""
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+::.+?)(?: - .*)?$", printed, flags=re.MULTILINE)
    return found[1] if found else None


def _last_line(printed: str) -> str:
    return (printed.strip().splitlines() or ["pytest said nothing"])[-1]


def _source(tree: Path, protection: Protection) -> Path:
    return tree / "src" / "bertpar" / protection.file


if __name__ == "__main__":
    sys.exit(main())
