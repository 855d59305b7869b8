"""What a worker finds on its machine, without torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bertpar.machine import default_training_slots, usable_cpus, visible_gpus


@pytest.fixture
def has_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have this machine's driver list so many GPUs."""

    def has_gpus(num_gpus: int) -> None:
        lines = "".join(f"GPU {i}: Made (UUID: GPU-{i}{i})\\n" for i in range(num_gpus)) or "No devices found.\\n"
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{lines}'\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return has_gpus


@pytest.mark.parametrize(
    ("variable", "seen"),
    [
        (None, ["0", "1", "2"]),
        ("2, 0", ["2", "0"]),
        ("GPU-11,2", ["GPU-11", "2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,-1,2", ["1"]),
        ("1,7,2", ["1"]),
    ],
)
def test_the_gpus_of_a_worker_are_those_that_cuda_would_see(
    has_gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, variable: str | None, seen: list[str]
) -> None:
    has_gpus(3)
    if variable is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == seen
    assert default_training_slots() == (len(seen) or usable_cpus())


@pytest.mark.parametrize("variable", ["0", "GPU-11"])
def test_a_machine_without_gpus_has_none_whatever_the_environment_says(
    has_gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    has_gpus(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == []
