"""What tracking.uri may be, and servers that are away, silent, or none."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bertpar import tracking
from bertpar.errors import ConfigError, TrackingError
from bertpar.events import MetricRow
from bertpar.paths import Home
from bertpar.spec import TrackingSpec


def test_a_dead_server_is_a_tracking_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    uri = f"http://127.0.0.1:{_free_port()}"
    with pytest.raises(TrackingError, match=uri):
        tracking.log_rows(uri, "a" * 32, [MetricRow(key="x", value=1.0, step=0, timestamp_ms=1)])


def test_an_unreachable_server_is_told_with_key_value_and_fix() -> None:
    uri = f"http://127.0.0.1:{_free_port()}"
    started = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        tracking.check_reachable(TrackingSpec(uri=uri, experiment="x"))
    assert time.monotonic() - started < 6
    message = str(caught.value)
    assert f"tracking.uri={uri}" in message
    assert "Connection refused" in message
    assert "tracking.uri=null" in message


def test_a_server_that_never_answers_is_given_up_within_six_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(TrackingError, match=r"timed out|does not answer"):
            tracking.check_reachable(TrackingSpec(uri=uri, experiment="x"))
        assert time.monotonic() - started < 6


@pytest.mark.parametrize(("status", "kind"), [(404, "application/json"), (200, "text/html")])
def test_a_server_that_is_not_mlflow_is_refused(status: int, kind: str) -> None:
    with _server(status, kind) as uri, pytest.raises(TrackingError, match="not as an MLflow server"):
        tracking.check_reachable(TrackingSpec(uri=uri, experiment="x"))


@pytest.mark.parametrize("status", [200, 401, 403])
def test_a_server_that_answers_or_wants_credentials_is_reachable(status: int) -> None:
    with _server(status, "application/json") as uri:
        tracking.check_reachable(TrackingSpec(uri=uri, experiment="x"))


def test_a_database_file_that_can_be_made_is_reachable_and_not_made(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/new/folder/m.db"
    tracking.check_reachable(TrackingSpec(uri=uri, experiment="x"))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello, this is not a database")
    for where in (path, tmp_path, path / "m.db"):
        with pytest.raises(TrackingError, match=r"tracking\.uri=sqlite"):
            tracking.check_reachable(TrackingSpec(uri=f"sqlite:///{where}", experiment="x"))


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "ftp://x", "sqlite://", "http://"])
def test_uris_that_mlflow_or_other_processes_cannot_use_are_config_errors(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri=") as caught:
        tracking.resolve_uri(uri, Home(Path("/h")))
    assert "sqlite:////absolute/path.db" in str(caught.value)


def test_uris_are_resolved_to_what_every_process_understands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home(Path("/h"))
    assert tracking.resolve_uri(None, home) == "sqlite:////h/mlflow.db"
    assert tracking.resolve_uri("sqlite:///runs.db", home) == f"sqlite:///{tmp_path}/runs.db"
    assert tracking.resolve_uri("http://host:5000/", home) == "http://host:5000"
    assert tracking.resolve_uri("postgresql+psycopg2://u:p@h/d", home) == "postgresql+psycopg2://u:p@h/d"


def test_passwords_are_not_shown() -> None:
    with pytest.raises(TrackingError) as caught:
        tracking.check_reachable(TrackingSpec(uri="postgresql://me:secret@127.0.0.1:1/db", experiment="x"))
    assert "secret" not in str(caught.value)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def _server(status: int, content_type: str) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
