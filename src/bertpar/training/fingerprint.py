"""What the bits of a training depend on: stored with every checkpoint, compared before one is gone on with."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from bertpar.events import SnapshotRef
from bertpar.identity import settings_of
from bertpar.spec import RunSpec

_CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile", "asimd", "sve", "bf16")
"""By which libraries for linear algebra choose their kernels."""

_LIBRARIES = ("torch", "transformers", "numpy")


def machine_fingerprint() -> dict[str, str]:
    """Return what of this process and machine decides how floating-point numbers are rounded.

    Not the load, the speed or the number of processors: threads are set explicitly.
    """
    fingerprint = {
        "processor": _processor(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": str(torch.get_num_threads()),
        "matmul": torch.get_float32_matmul_precision(),
    }
    return fingerprint | {library: version(library) for library in _LIBRARIES}


def run_fingerprint(spec: RunSpec, snapshot: SnapshotRef) -> dict[str, str]:
    """Return what a run computes, flat: a checkpoint of another run is none of this one."""
    return settings_of(spec) | {"snapshot": snapshot.digest, "model": snapshot.model_digest}


@cache
def _processor() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {capability}"
    facts = dict(line.split("\t", 1) for line in lines if "\t" in line)  # of the last core: all are alike
    found = {key.strip(): value.strip(" \t:") for key, value in facts.items()}
    flags = (found.get("flags") or found.get("Features") or "").split()
    features = ",".join(feature for feature in _CPU_FEATURES if feature in flags)
    return f"{platform.machine()} {found.get('vendor_id', '')} {capability} {features}"
