"""Training stops for a copy of its state, and not for the store; what is made of the copy is what was copied."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file

from bertpar.checkpoints import OPTIMIZER_FILE, WEIGHTS_FILE
from bertpar.errors import CheckpointMemoryError
from bertpar.events import CheckpointSaved, Progress
from bertpar.models import load_classifier, resolve_model
from bertpar.store import Store, sha256_of, write_hashed
from bertpar.store.direct import BLOCK_BYTES
from bertpar.training import callbacks, committer
from bertpar.training.saving import CheckpointCopy
from bertpar.training.state import TrainingState
from bertpar.training.tensor_file import TensorFile
from tests.training.conftest import SPEC, TINY, Lab, same_weights

_LONGEST_SECONDS = 60.0


class GatedStore(Store):
    """Publishes the checkpoint of step 2 only when `gate` is open."""

    def __init__(self, root: str, cache: Path) -> None:
        super().__init__(root, cache)
        self.gate = threading.Event()
        self.was_opened_in_time = False

    def publish(self, key: str, *arguments: Any) -> Any:
        if key.endswith("step-00000002"):
            self.was_opened_in_time = self.gate.wait(_LONGEST_SECONDS)
        return super().publish(key, *arguments)


@pytest.fixture
def gated(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lab:
    monkeypatch.setattr(callbacks, "_PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(committer, "_SECONDS_UNTIL_SAID", 0.01)
    return replace(lab, store=GatedStore(lab.store.root, tmp_path), events=[])


def test_steps_are_done_while_a_checkpoint_is_written_and_it_holds_the_step_that_it_was_taken_at(gated: Lab) -> None:
    store = gated.store
    assert isinstance(store, GatedStore)
    weights: list[dict[str, torch.Tensor]] = []

    def open_at_step_3(kind: str, value: Any) -> None:
        if isinstance(value, Progress) and value.step == 3:
            store.gate.set()
        if isinstance(value, CheckpointSaved) and value.checkpoint.step == 2:
            weights.append(gated.weights(value.checkpoint))

    gated.train(SPEC, "gated", also=open_at_step_3)
    assert store.was_opened_in_time
    gated.train(SPEC, "ungated", also=open_at_step_3)  # the gate is open
    assert same_weights(*weights)


def test_the_next_checkpoint_waits_for_the_one_before_and_says_why(gated: Lab) -> None:
    store = gated.store
    assert isinstance(store, GatedStore)
    steps: list[int] = []

    def open_when_told(kind: str, value: Any) -> None:
        if isinstance(value, Progress):
            steps.append(value.step)
            if value.waiting == "storage: the checkpoint before is still being written":
                store.gate.set()

    gated.train(SPEC, "waiting", also=open_when_told)
    assert store.was_opened_in_time
    said = [v.waiting for _, v in gated.events if isinstance(v, Progress)]
    told = next(i for i, waiting in enumerate(said) if waiting)
    assert max(steps[: told + 1]) == 4  # where the next one was due
    assert said[-1] is None


@pytest.mark.parametrize("work", ["_make_room", "content"], ids=["to copy", "to write"])
def test_no_memory_for_a_checkpoint_is_not_taken_for_too_large_a_batch(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 99999999 bytes")

    monkeypatch.setattr(TensorFile, work, fail)
    with pytest.raises(CheckpointMemoryError, match="the checkpoint of step 2: .*a copy of the weights"):
        lab.train(SPEC, "no-room")


def test_a_checkpoint_holds_the_model_and_the_moments_to_the_bit(lab: Lab, tmp_path: Path) -> None:
    model = load_classifier(TINY, resolve_model(TINY), 2, ("a", "b"), "classification", seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    model.save_pretrained(tmp_path)
    copy = CheckpointCopy().take(TrainingState(step=1), model, optimizer.state_dict())
    moments = {f"{i}.{k}": v.clone() for i, s in optimizer.state_dict()["state"].items() for k, v in s.items()}
    optimizer.step()  # what comes later does not reach the copy
    folder = lab.store.fetch(copy.publish(lab.store, "runs/bits/checkpoints/attempt-1/1", {"attempt": 1}).key)
    assert same_weights(load_file(folder / WEIGHTS_FILE), load_file(tmp_path / WEIGHTS_FILE))
    assert same_weights(load_file(folder / OPTIMIZER_FILE), moments)
    assert (folder / "config.json").read_text() == (tmp_path / "config.json").read_text()


def test_room_is_used_again_and_made_anew_for_other_tensors() -> None:
    file = TensorFile()
    one = {"half": torch.ones(3, dtype=torch.bfloat16), "scalar": torch.tensor(2.0), "flags": torch.tensor([True])}
    two = {name: tensor.clone() for name, tensor in one.items()} | {"scalar": torch.tensor(7.0)}
    file.keep(one)
    place = file.content()[1]
    file.keep(two)
    assert bytes(place) == bytes(file.content()[1])  # the same memory
    assert same_weights(load(b"".join(file.content())), two)
    file.keep({"other": torch.arange(4)})
    assert same_weights(load(b"".join(file.content())), {"other": torch.arange(4)})


@pytest.mark.parametrize("head", [b"", b"head", b"head" * 1024])
def test_what_was_hashed_is_what_the_file_holds(tmp_path: Path, head: bytes) -> None:
    content = bytes(range(256)) * 3001
    digest = write_hashed(tmp_path / "file", head, memoryview(content))
    assert (tmp_path / "file").read_bytes() == head + content
    assert digest == (len(head) + len(content), sha256_of(tmp_path / "file"))


def test_tensors_go_past_the_page_cache_where_the_file_system_can_do_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past: list[int] = []

    def write(descriptor: int, data: memoryview) -> int:
        written = os_write(descriptor, data)
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            past.append(written)
        return written

    os_write = os.write
    monkeypatch.setattr(os, "write", write)
    tensors = {name: torch.randn(2_000, 1_500) for name in ("a", "b")}
    file = TensorFile()
    file.keep(tensors)
    write_hashed(tmp_path / "file", *file.content())
    assert same_weights(load_file(tmp_path / "file"), tensors)
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    of_tensors = [written for written in past if written > BLOCK_BYTES]  # the header may go the same way
    assert sum(of_tensors) == (num_bytes - num_bytes % BLOCK_BYTES if _can_write_past_the_cache(tmp_path) else 0)


def _can_write_past_the_cache(folder: Path) -> bool:
    descriptor = os.open(folder / "probe", os.O_CREAT | os.O_WRONLY)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT)
        with mmap.mmap(-1, BLOCK_BYTES) as block:
            os.write(descriptor, block)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.EFAULT, errno.EOPNOTSUPP])
def test_where_the_way_past_the_cache_is_refused_files_are_written_through_it(
    refusal: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(descriptor: int, data: memoryview) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(refusal, "refused")
        return os_write(descriptor, data)

    os_write = os.write
    monkeypatch.setattr(os, "write", write)
    content = bytes(range(256)) * 100_000
    digest = write_hashed(tmp_path / "file", memoryview(content))
    assert (tmp_path / "file").read_bytes() == content
    assert digest == (len(content), sha256_of(tmp_path / "file"))
