"""What the CPU can do, as far as results and speed depend on it."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile", "asimd", "sve", "bf16")
"""By which libraries for linear algebra choose their kernels."""

_FAST_BF16 = ("avx512_bf16", "amx_bf16")
"""With one of them products of bfloat16 take half the time of float32, or less; without, they are emulated."""


@cache
def processor_features() -> tuple[str, ...]:
    """Return those of the features above that the CPU has; none where the system does not tell."""
    flags = (_cpuinfo().get("flags") or _cpuinfo().get("Features") or "").split()
    return tuple(feature for feature in _FEATURES if feature in flags)


def processor_vendor() -> str:
    """Return the vendor's name; where the system does not tell, the processor's, or nothing."""
    return _cpuinfo().get("vendor_id", "") or platform.processor()


def has_fast_bf16() -> bool:
    """Say whether the CPU computes with bfloat16 by itself."""
    return any(feature in processor_features() for feature in _FAST_BF16)


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    facts = (line.split(":", 1) for line in lines if ":" in line)  # of the last core: all are alike
    return {key.strip(): value.strip() for key, value in facts}
