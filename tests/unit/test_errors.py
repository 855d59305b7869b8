"""The documentation's table of failures is that of the code, and failures keep what they know on their way."""

from __future__ import annotations

from pathlib import Path

from bertpar.errors import ERRORS, BertparError, NotANumberError, failure_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_documented_table_is_that_of_the_code() -> None:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    classes = {name: cls for name, cls in ERRORS.items() if cls is not BertparError}
    expected = [
        f"| `{name}` | {(cls.__doc__ or '').strip().splitlines()[0]} | {cls.action.value} |"
        for name, cls in classes.items()
    ]
    assert sorted(rows) == sorted(expected)


def test_a_failure_travels_with_its_class_its_step_or_its_traceback() -> None:
    error = NotANumberError("loss is nan")
    error.step = 7
    assert (failure_of(error).error_type, failure_of(error).step) == ("NotANumberError", 7)
    try:
        {}["missing"]
    except KeyError as bug:
        failure = failure_of(bug)
    assert failure.error_type == "KeyError"
    assert failure.traceback is not None
    assert "test_errors.py" in failure.traceback


def test_any_way_to_say_that_memory_has_run_out_is_one_class() -> None:
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried"), RuntimeError("can't allocate memory: 9")):
        assert failure_of(error).error_type == "OutOfMemoryError"
    assert failure_of(RuntimeError("shape mismatch")).error_type == "RuntimeError"
