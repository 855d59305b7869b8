"""What the bits of a training depend on: stored with every checkpoint, compared before one is gone on with."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version

import torch

from bertpar.events import SnapshotRef
from bertpar.identity import settings_of
from bertpar.processor import processor_features, processor_vendor
from bertpar.spec import RunSpec

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
    return fingerprint | library_versions()


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute; read once for all forks of this process."""
    return {library: version(library) for library in _LIBRARIES}


def run_fingerprint(spec: RunSpec, snapshot: SnapshotRef) -> dict[str, str]:
    """Return what a run computes, flat: a checkpoint of another run is none of this one."""
    return settings_of(spec) | {"snapshot": snapshot.digest, "model": snapshot.model_digest}


def _processor() -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {processor_vendor()} {capability} {','.join(processor_features())}"
