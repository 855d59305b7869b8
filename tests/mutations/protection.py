"""What a protection is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Protection:
    """A piece of code that must be noticed when it is gone."""

    name: str
    protects: str
    """What would happen without it, or what it promises: one sentence."""
    file: str
    """Below src/bertpar/."""
    code: str
    """Occurs there exactly once."""
    instead: str
    tests: tuple[str, ...]
    """Node ids below tests/, of which one at least must fail: few and fast ones."""


def tests_of(file: str, *names: str) -> tuple[str, ...]:
    """Return the node ids of tests of one file below tests/, given without their `test_`."""
    return tuple(f"{file}::test_{name}" for name in names)
