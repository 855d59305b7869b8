"""Tracking URIs: which there are, and whether somebody answers. Standard library only."""

from __future__ import annotations

import os
import queue
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from bertpar.errors import ConfigError, TrackingError
from bertpar.paths import Home
from bertpar.spec import TrackingSpec

_SQLITE = "sqlite:///"
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_ALLOWED = (
    "null (a local database), http://host:port, https://host, sqlite:////absolute/path.db, "
    "postgresql://..., mysql://..., mssql://..., databricks"
)
_CONNECT_SECONDS = 4.0
_CHECK_SECONDS = 5.0
_SQLITE_HEADER = b"SQLite format 3\0"


def resolve_uri(uri: str | None, home: Home) -> str:
    """Return what means the same in every process: for None the local database, SQLite paths absolute.

    Raises:
        ConfigError: MLflow does not know such a URI, or it names no place that processes can share.
    """
    if uri is None:
        return home.mlflow_uri
    _check_scheme(uri)
    if (path := sqlite_path(uri)) is not None:
        return f"{_SQLITE}{path.expanduser().resolve()}"
    return uri.rstrip("/")


def sqlite_path(uri: str) -> Path | None:
    """Return the database file of a SQLite URI; None for other URIs."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def check_reachable(tracking: TrackingSpec) -> None:
    """Return if MLflow could log to `tracking.uri` now; know it within five seconds.

    Raises:
        ConfigError: MLflow does not know such a URI.
        TrackingError: nobody answers, what answers is not MLflow, or the database cannot be written.
    """
    uri = tracking.uri
    _check_scheme(uri)
    if (path := sqlite_path(uri)) is not None:
        problem = _file_problem(path)
    elif uri.startswith(("http://", "https://")):
        problem = _within(_CHECK_SECONDS, lambda: _http_problem(uri))
    elif (scheme := urlsplit(uri).scheme.partition("+")[0]) in _DATABASE_PORTS:
        problem = _within(_CHECK_SECONDS, lambda: _socket_problem(uri, _DATABASE_PORTS[scheme]))
    else:
        problem = None  # databricks: its own client knows where to look
    if problem is not None:
        raise TrackingError(
            f"tracking.uri={without_password(uri)} {problem}. "
            "Start the server there, correct the address, or use the local database: tracking.uri=null"
        )


def _check_scheme(uri: str) -> None:
    shown = without_password(uri)
    if uri in ("sqlite://", _SQLITE) or ":memory:" in uri:
        raise ConfigError(f"tracking.uri={shown} is a database in memory, which no other process sees; use {_ALLOWED}")
    if uri.startswith(_SQLITE) or uri.startswith("databricks"):
        return
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] in ("http", "https", *_DATABASE_PORTS):
        if not parts.netloc:
            raise ConfigError(f"tracking.uri={shown} names no host; use {_ALLOWED}")
        return
    folder = "is a folder, and MLflow has closed its file store" if parts.scheme in ("", "file") else "is unknown"
    raise ConfigError(f"tracking.uri={shown} {folder}; use {_ALLOWED}")


def _file_problem(path: Path) -> str | None:
    if path.is_dir():
        return "is a folder, not a database file"
    if path.exists():
        try:
            with path.open("r+b") as file:
                header = file.read(len(_SQLITE_HEADER))
        except OSError as error:
            return f"cannot be written: {error.strerror}"
        return None if header in (b"", _SQLITE_HEADER) else "is not a SQLite database"
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        return f"cannot be made: {parent} is a file"
    return None if os.access(parent, os.W_OK | os.X_OK) else f"cannot be made: {parent} is not writable"


def _http_problem(uri: str) -> str | None:
    context = ssl.create_default_context()
    context.check_hostname = False  # no secret is sent: whether to trust the server is for MLflow's client to say
    context.verify_mode = ssl.CERT_NONE
    url = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1"
    try:
        with urllib.request.urlopen(url, timeout=_CONNECT_SECONDS, context=context) as response:
            is_json = "json" in response.headers.get("Content-Type", "")
            return None if is_json else "answers, but not as an MLflow server"
    except urllib.error.HTTPError as error:
        # 401 and 403: a server that wants credentials, which workers have and this client may not have.
        return None if error.code in (401, 403) else f"answers HTTP {error.code}, not as an MLflow server"
    except urllib.error.URLError as error:
        return f"cannot be reached: {getattr(error.reason, 'strerror', None) or error.reason}"
    except Exception as error:  # whatever a server that does not speak HTTP makes the standard library raise
        return f"cannot be reached: {error or type(error).__name__}"


def _socket_problem(uri: str, default_port: int) -> str | None:
    parts = urlsplit(uri)
    try:
        socket.create_connection((parts.hostname or "", parts.port or default_port), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        return f"cannot be reached: {getattr(error, 'strerror', None) or error}"
    return None


def _within(seconds: float, check: Callable[[], str | None]) -> str | None:
    """Return what `check` finds, or that it took too long: looking up a name has no time-out."""
    found: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=lambda: found.put(check()), daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return f"does not answer within {seconds:g} s"


def without_password(uri: str) -> str:
    """Return the URI as it may be shown."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")).geturl()
