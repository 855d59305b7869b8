"""How a job process tells what happens: one line of JSON an event, written by a thread of its own.

Whoever tells never waits for a reader that is slow or away. What must arrive waits in its order. Of progress and signs
of life, which grow old, only the newest waits.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, is_dataclass
from typing import IO, Any

from bertpar.events import TICK

_GROWS_OLD = ("progress", TICK)


class EventStream:
    """Events in their order, from any thread."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._waiting: list[tuple[str, str]] = []
        """Kinds and lines."""
        self._changed = threading.Condition()
        self._is_writing = False
        self._failure: OSError | None = None
        threading.Thread(target=self._write, name="events", daemon=True).start()

    def emit(self, kind: str, value: Any) -> None:
        """Have the event written as soon as the reader takes it.

        Raises:
            OSError: the reader is gone.
        """
        plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        line = json.dumps({"kind": kind, "value": plain}) + "\n"
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if kind in _GROWS_OLD:
                self._waiting = [event for event in self._waiting if event[0] != kind]
            self._waiting.append((kind, line))
            self._changed.notify_all()

    def flush(self) -> None:
        """Return when everything is written, or nobody will ever read it."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or not (self._waiting or self._is_writing))

    def _write(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                events, self._waiting = self._waiting, []
                self._is_writing = True
            try:
                for _, line in events:
                    self._file.write(line)
                    self._file.flush()
            except OSError as error:
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
