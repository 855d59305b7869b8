"""A store whose disk is full: nothing half-written, nothing lost, one error that says so; and on with free space.

The disk is a real file system of a few megabytes, mounted by a process for itself alone: its mount goes with it. A
user who is not root gets the right to do so from a user namespace. Rejected: RLIMIT_FSIZE, whose error is another one
(EFBIG), and a preloaded library that fails, which needs a compiler and tests an imitation.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bertpar.stack.roles import importable_path

MEGABYTES = 8

SETTING = """
import random, sys
from pathlib import Path
import torch
from bertpar.checkpoints import checkpoint_key
from bertpar.data.snapshot import make_snapshot
from bertpar.errors import DiskFullError
from bertpar.models import load_classifier, resolve_model
from bertpar.store import Store
from bertpar.training.saving import CheckpointCopy
from bertpar.training.state import TrainingState
from tests.unit.data_sets import TINY, data_spec, reviews, write_csv

disk, elsewhere = map(Path, sys.argv[1:])
store = Store(str(disk / "store"), elsewhere)
model = load_classifier(TINY, resolve_model(TINY), 2, ("bad", "good"), "classification", 1)
optimizer = torch.optim.AdamW(model.parameters())
for parameter in model.parameters():
    parameter.grad = torch.ones_like(parameter)
optimizer.step()
data = data_spec(write_csv(elsewhere / "train.csv", reviews(2000)))

def write(folder, size):
    (folder / "predictions.jsonl").write_bytes(random.Random(1).randbytes(size))

def write_tensor(folder):
    with (folder / "tensor.pt").open("wb") as file:
        torch.save({"large": torch.zeros(600_000)}, file)

PUBLISH = {
    "checkpoint": lambda: CheckpointCopy()
    .take(TrainingState(step=2), model, optimizer.state_dict())
    .publish(store, checkpoint_key("s/0", 1, 2), {"attempt": 1})
    .key,
    "snapshot": lambda: make_snapshot(data, TINY, store).key,
    "evaluation": lambda: store.publish("runs/s/0/evaluation/2", lambda folder: write(folder, 300_000)).key,
    "a large tensor": lambda: store.publish("runs/s/0/evaluation/3", write_tensor).key,
    "a small file": lambda: store.publish("specs/2", lambda folder: write(folder, 10)).key,
}

def free_bytes():
    import os
    status = os.statvfs(disk)
    return status.f_bavail * status.f_frsize

def fill_up(spare):
    with (disk / "filler").open("wb", buffering=0) as file:
        while (left := free_bytes() - spare) > 0:
            file.write(bytes(left))
"""

CASES = """
def files_outside_of_bundles():
    files = [path for path in (disk / "store").rglob("*") if path.is_file() and ".locks" not in path.parts]
    bundles = [disk / "store" / key for key in store.list("")]
    return [path for path in files if path.parent not in bundles]

committed = store.publish("specs/1", lambda folder: write(folder, 1000))
for name, spare in [
    ("a small file", 0),
    ("checkpoint", 0),
    ("checkpoint", 50_000),  # the weights do not fit
    ("checkpoint", 250_000),  # the optimizer's state does not fit
    ("evaluation", 100_000),
    ("a large tensor", 1_000_000),  # torch raises an error of its own, and names the cause in its context alone
    ("snapshot", 0),
    ("snapshot", 100_000),  # the tokenizer is there
]:
    before = store.list("runs"), store.list("snapshots")
    fill_up(spare)
    try:
        print("published", PUBLISH[name]())
    except DiskFullError as error:
        print(error)
    assert not files_outside_of_bundles()
    assert (store.list("runs"), store.list("snapshots")) == before
    store.fetch("specs/1", digest=committed.digest)
    (disk / "filler").unlink()
    key = PUBLISH[name]()
    store.fetch(key)
    print("then published", key)
    store.remove(key)
"""


def on_a_small_disk(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process that alone sees a small disk; its arguments are the disk's and another folder."""
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f'mount -t tmpfs -o size={MEGABYTES}m tmpfs "$1" && exec "$0" -c "$3" "$1" "$2"'
    command = [*alone, "sh", "-c", mount, sys.executable, str(disk), str(elsewhere), code]
    path = importable_path({"PYTHONPATH": str(Path(__file__).parents[2])})
    env = os.environ | {"BERTPAR_HOME": str(tmp_path / "home"), "PYTHONPATH": path}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_full_disk_is_told_leaves_nothing_and_is_forgotten_when_there_is_space(tmp_path: Path) -> None:
    done = on_a_small_disk(SETTING + CASES, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.strip().split("\n")
    told, then = lines[::2], lines[1::2]
    assert len(told) == len(then) == 8
    for message, success in zip(told, then, strict=True):
        assert message.startswith(f"store.root={tmp_path}/disk/store: cannot "), message
        assert "No space left on device. Free some space there" in message
        assert success.startswith("then published ")


JOB = """
import asyncio, tempfile
from bertpar.codec import publish_spec
from bertpar.data.snapshot import make_snapshot
from bertpar.events import TrainJob
from bertpar.process import JobFailed, JobStarter, run_job
from bertpar.spec import TrackingSpec
from tests.training.conftest import SPEC

async def ignore(kind, value): pass

async def main():
    tempfile.tempdir = str(disk)
    logs = disk / "logs"
    starter = JobStarter(logs)
    await starter.warm_up()
    job = TrainJob(
        store_root=store.root,
        run_id="sweep/0",
        spec_key=publish_spec(store, SPEC),
        snapshot=make_snapshot(data, TINY, store),
        attempt=1,
        resume_from=(),
        tracking=TrackingSpec(uri="sqlite://", experiment="test"),
    )
    (logs / "old.log").write_text("x" * 4096)  # its page is full
    fill_up(0)
    (logs / "folder.log").mkdir()  # cannot be opened
    for log in ("old.log", "new.log", "folder.log"):
        try:
            await run_job(starter, "train", job, ignore, log_file=logs / log)
        except JobFailed as error:
            print(error.failure.error_type, error.failure.message)

asyncio.run(main())
"""


def test_a_job_on_a_full_disk_tells_of_it_where_it_can_write_nothing_not_even_its_log(tmp_path: Path) -> None:
    done = on_a_small_disk(SETTING + JOB, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.strip().split("\n")
    assert len(told) == 3, done.stdout + done.stderr
    for line in told:
        assert line.startswith("DiskFullError store.root="), line
