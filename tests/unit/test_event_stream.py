"""Events leave a job in their order, and nobody who tells them waits for a reader."""

from __future__ import annotations

import json
import os

import pytest

from bertpar.event_stream import EventStream
from bertpar.events import TICK

_MORE_THAN_A_PIPE_HOLDS = 2**17


def test_a_reader_that_is_away_holds_up_nobody_and_misses_only_what_grew_old() -> None:
    read_end, write_end = os.pipe()
    events = EventStream(os.fdopen(write_end, "w", encoding="utf-8"))
    events.emit("note", "x" * _MORE_THAN_A_PIPE_HOLDS)  # is half written until somebody reads
    for step in range(1000):
        events.emit("progress", {"step": step})
        events.emit(TICK, None)
        if step % 100 == 0:
            events.emit("checkpoint", {"step": step})
    events.emit("result", "done")
    seen = []
    with os.fdopen(read_end, encoding="utf-8") as reader:
        while (event := json.loads(reader.readline()))["kind"] != "result":
            seen.append(event)
        events.flush()
    assert [e["value"]["step"] for e in seen if e["kind"] == "checkpoint"] == list(range(0, 1000, 100))
    progress = [e["value"]["step"] for e in seen if e["kind"] == "progress"]
    assert progress[-1] == 999
    assert len(progress) <= 2  # one that was taken up before the reader was missed, and the newest


def test_who_tells_hears_that_the_reader_is_gone() -> None:
    read_end, write_end = os.pipe()
    events = EventStream(os.fdopen(write_end, "w", encoding="utf-8"))
    os.close(read_end)
    events.emit("note", "into the void")
    events.flush()
    with pytest.raises(BrokenPipeError):
        events.emit("note", "once more")
