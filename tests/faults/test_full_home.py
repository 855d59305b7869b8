"""A home whose disk is full: a stack that runs goes on, and its record is true later; none begins there."""

from __future__ import annotations

from pathlib import Path

from bertpar.stack.child import Child, Role
from tests.faults.test_full_store import on_a_small_disk
from tests.stack.helpers import wait_for

SETTING = """
import os, signal, subprocess, sys, uuid
from pathlib import Path
import psutil
from bertpar import stack
from bertpar.stack import supervisor
from bertpar.errors import StackError
from bertpar.paths import Home
from bertpar.stack.child import Child, Role
from bertpar.stack.record import acquire_lock, is_locked, last_record, write_record
from bertpar.stack.settings import Settings
from bertpar.stack.supervisor import Supervisor, plan_stack
from tests.stack.helpers import wait_for

home = Home(Path(sys.argv[1]))

def fill_up():
    with (home.root / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
"""

SUPERVISED = """
class OneSleeper(Supervisor):
    def _start_services(self):
        ready = lambda pid: True
        role = Role(name="temporal", argv=["sleep", "60"], env={}, log=home.logs / "x", is_ready=ready, grace_seconds=5)
        self._children = {role.name: Child(role)}

tries = Path(sys.argv[2]) / "tries"  # elsewhere: there is space

def write_and_tell(home, stack):
    with tries.open("a") as file:
        file.write(f"{stack.pids.get('temporal')}\\n")
    write_record(home, stack)

pid = os.fork()
if pid == 0:
    supervisor.write_record = write_and_tell
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    token = uuid.uuid4().hex
    lock = acquire_lock(home, token)
    planned = plan_stack(home, Settings(), token)
    write_record(home, planned)
    OneSleeper(home, planned, Path("unused"), lock).run()
    os._exit(0)

def sleeper():
    # not one that is just being forked: that still looks like the supervisor
    return next((child.pid for child in psutil.Process(pid).children() if child.name() == "sleep"), None)

def recorded():
    now = stack.read(home)
    return now.pids.get("temporal") if now is not None and now.state == "up" else None

try:
    first = wait_for(recorded, "record")
    fill_up()
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: sleeper() not in (None, first) and sleeper(), "new process")
    # three: its start, its readiness, and once more, which no change was a reason for
    wait_for(lambda: tries.read_text().split().count(str(second)) >= 3, "another try at the record")
    assert recorded() == first
    (home.root / "filler").unlink()
    wait_for(lambda: recorded() == second, "true record")
    fill_up()
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == 0
finally:
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGKILL)
"""

NEW = """
fill_up()
try:
    stack.ensure_up(home)
except StackError as error:
    print(error)
assert not is_locked(home)
command = [sys.executable, "-m", "bertpar.stack.supervisor", "--home", str(home.root)]
done = subprocess.run(command, capture_output=True, text=True)
assert "Traceback" not in done.stderr, done.stderr
print(done.returncode, done.stdout)
"""


def test_a_supervisor_goes_on_with_a_full_disk_and_its_record_is_true_again_with_free_space(tmp_path: Path) -> None:
    done = on_a_small_disk(SETTING + SUPERVISED, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stack_that_cannot_begin_on_a_full_disk_says_so_at_once(tmp_path: Path) -> None:
    done = on_a_small_disk(SETTING + NEW, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    command, supervisor = done.stdout.strip().split("\n")
    assert "No space left on device. Free some space there" in command
    assert supervisor.startswith("1 ")
    assert supervisor.endswith("cannot start: [Errno 28] No space left on device")


def test_a_process_whose_log_cannot_be_opened_is_started_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    role = Role(
        name="x",
        argv=["true"],
        env={},
        log=tmp_path / "logs" / "x",
        is_ready=lambda _: False,
        grace_seconds=1,
        once=True,
    )
    child = Child(role)
    wait_for(lambda: child.tend() and child.done, "end of the process")
