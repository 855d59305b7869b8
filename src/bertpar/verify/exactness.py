"""Which configurations cannot be repeated bit for bit, why, and what to change."""

from __future__ import annotations

from typing import Literal

from bertpar.spec import RunSpec

Device = Literal["cpu", "gpu"]


def exactness_problems(spec: RunSpec, device: Device) -> list[str]:
    """Return one sentence for each reason why two trainings of `spec` may differ, with the fix; none if they cannot."""
    problems = []
    if spec.trainer.num_threads is None:
        problems.append(
            "trainer.num_threads=null leaves the number of CPU threads to each worker, and each "
            "number rounds sums differently. Name one: trainer.num_threads=1"
        )
    if device == "gpu":
        problems.append(
            "on a GPU the gradients of attention are added up in no fixed order (PyTorch's memory-efficient "
            "attention). Train on the CPU instead: CUDA_VISIBLE_DEVICES= bertpar ..."
        )
    return problems
