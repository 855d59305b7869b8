"""What may be gone on with, and what an attempt that goes on otherwise says of itself."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from bertpar.errors import ConfigError, InexactResumeError, NotANumberError, OutOfMemoryError
from bertpar.identity import differing_values
from bertpar.training import continuity
from bertpar.training.fingerprint import machine_fingerprint
from bertpar.training.module import Classifier
from tests.training.conftest import SPEC, Killed, Lab, same_weights, with_trainer


def killed_at(lab: Lab, run_id: str, step: int) -> None:
    with pytest.raises(Killed):
        lab.train(SPEC, run_id, kill_at_step=step)


def test_a_checkpoint_of_another_run_is_refused_with_both_values(lab: Lab) -> None:
    killed_at(lab, "other-seed", 4)
    with pytest.raises(ConfigError, match="another run: seed=2 instead of 1"):
        lab.train(replace(SPEC, seed=2), "other-seed", attempt=2, resume_from=(lab.saved("other-seed", 4),))


def test_another_kind_of_machine_is_refused_unless_allowed_and_then_recorded(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(lab, "moved", 4)
    known = (lab.saved("moved", 4),)
    elsewhere = machine_fingerprint() | {"processor": "an abacus"}
    monkeypatch.setattr(continuity, "machine_fingerprint", lambda: elsewhere)
    with pytest.raises(InexactResumeError, match=r"processor=an abacus instead of .*allow_inexact=true"):
        lab.train(SPEC, "moved", attempt=2, resume_from=known)
    with pytest.raises(Killed):
        lab.train(SPEC, "moved", attempt=3, resume_from=known, allow_inexact=True, kill_at_step=8)
    result = lab.train(SPEC, "moved", attempt=4, resume_from=(lab.saved("moved", 8),))  # it remembers
    assert len(result.inexact) == 1
    assert "step 4 was reached on another kind of machine: processor=an abacus" in result.inexact[0]


def test_another_number_of_threads_is_another_kind_of_machine() -> None:
    one = machine_fingerprint()
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        (difference,) = differing_values(machine_fingerprint(), one)
    finally:
        torch.set_num_threads(before)
    assert difference == f"threads={before + 1} instead of {before}"


def test_an_undisturbed_run_is_exact(lab: Lab) -> None:
    assert lab.train(SPEC, "exact").inexact == ()


def test_smaller_micro_batches_give_the_same_steps_up_to_rounding_and_are_recorded(lab: Lab) -> None:
    spec = with_trainer(SPEC, batch_size=5, accumulate=2)
    whole, cut = lab.train(spec, "uncut"), lab.train(spec, "cut", batch_divisor=2)
    assert cut.total_steps == whole.total_steps
    assert cut.inexact == (
        "from step 1 on each micro-batch, and each batch of a validation, is cut into 2: out of memory",
    )
    ours, theirs = lab.weights(cut.last), lab.weights(whole.last)
    assert not same_weights(ours, theirs)  # dropout falls otherwise
    largest = max((ours[key] - theirs[key]).abs().max().item() for key in ours)
    assert largest < 0.02


def test_a_lower_rate_after_nan_is_used_and_recorded(lab: Lab) -> None:
    killed_at(lab, "lowered", 6)
    known = (lab.saved("lowered", 6),)
    lowered = lab.train(SPEC, "lowered", attempt=2, resume_from=known, lr_scale=0.5)
    whole = lab.train(SPEC, "not-lowered")
    assert lowered.inexact == ("from step 7 on the learning rate is 0.5 times as large: NaN loss",)
    assert not same_weights(lab.weights(lowered.last), lab.weights(whole.last))


@pytest.mark.parametrize("step", [6, 9], ids=["before a validation", "after one"])
def test_out_of_memory_tells_step_and_size_and_the_fix(lab: Lab, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    forward = Classifier._logits

    def hungry(self: Classifier, batch: Any) -> Any:
        if self.step + 1 == step and self.training:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 99999999 bytes")
        return forward(self, batch)

    monkeypatch.setattr(Classifier, "_logits", hungry)
    with pytest.raises(
        OutOfMemoryError, match=rf"^step {step}, micro-batches of 2: .*Lower trainer.batch_size"
    ) as caught:
        lab.train(SPEC, f"hungry-{step}", batch_divisor=2)
    assert caught.value.step == step


def test_out_of_memory_in_a_validation_tells_its_own_size_and_the_next_attempt_validates_with_half_of_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate, room = Classifier.validation_step, 4

    def hungry(self: Classifier, batches: Any, batch_idx: int) -> None:
        if sum(len(batch.positions_B) for batch in batches) > room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        validate(self, batches, batch_idx)

    monkeypatch.setattr(Classifier, "validation_step", hungry)
    told = r"validation after step (\d+), batches of 8: .*Lower trainer.eval_batch_size"
    with pytest.raises(OutOfMemoryError, match=told) as caught:
        lab.train(SPEC, "hungry-validation")
    found = re.match(told, str(caught.value))
    assert found is not None
    assert caught.value.step == int(found[1]) + 1
    lab.train(SPEC, "hungry-validation", attempt=2, batch_divisor=2)


def test_a_nan_loss_names_step_and_examples(lab: Lab) -> None:
    spec = replace(SPEC, optim=replace(SPEC.optim, lr=1.0, weight_decay=1e38, clip=None))
    with pytest.raises(NotANumberError, match=r"train/loss=nan at step \d+ .*its examples: rows \w+, ") as caught:
        lab.train(spec, "diverging")
    assert caught.value.step is not None
    assert f"at step {caught.value.step} " in str(caught.value)
