"""Reads typed values out of a resolved configuration, collecting every complaint instead of stopping at the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


class Reader:
    """One section of a configuration. `problems` is shared by all sections of all runs.

    Every method returns a value of the right type even where it complains, so that reading can go on; the caller
    must not use what was read when there are problems.
    """

    def __init__(self, section: Mapping[str, Any], prefix: str, problems: list[str]) -> None:
        self._section = section
        self._prefix = prefix
        self._problems = problems
        self._read: set[str] = set()

    def complain(self, key: str, what: str) -> None:
        """Note that `key`, with the value it has, is wrong: `what` says what is allowed and how to mend it."""
        value = self._section.get(key)
        self._problems.append(f"{self._prefix}{key}={'null' if value is None else value} {what}")

    def add_problems(self, problems: Sequence[str]) -> None:
        """Note complaints that were found elsewhere, whole as they are."""
        self._problems.extend(problems)

    def section(self, key: str) -> Reader:
        """Return the reader of a nested section."""
        value = self._value(key)
        if not isinstance(value, Mapping):
            self.complain(key, "must be a group of keys; see --cfg job")
            value = {}
        return Reader(value, f"{self._prefix}{key}.", self._problems)

    def text(self, key: str) -> str:
        value = self._value(key)
        if isinstance(value, bool | Mapping | list) or value is None or str(value) == "":
            self.complain(key, "must be a non-empty text")
            return ""
        return str(value)

    def optional_text(self, key: str) -> str | None:
        return None if self._value(key) is None else self.text(key)

    def flag(self, key: str) -> bool:
        value = self._value(key)
        if not isinstance(value, bool):
            self.complain(key, "must be true or false")
            return False
        return value

    def choice(self, key: str, allowed: Sequence[str]) -> Any:
        value = self._value(key)
        if value not in allowed:
            self.complain(key, f"is unknown; choose from: {', '.join(allowed)}")
            return allowed[0]
        return value

    def optional_choice(self, key: str, allowed: Sequence[str]) -> Any:
        return None if self._value(key) is None else self.choice(key, allowed)

    def integer(self, key: str, *, minimum: int, hint: str = "") -> int:
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            self.complain(key, f"must be an integer >= {minimum}. {hint}".rstrip())
            return minimum
        return value

    def optional_integer(self, key: str, *, minimum: int, hint: str = "") -> int | None:
        return None if self._value(key) is None else self.integer(key, minimum=minimum, hint=hint)

    def number(
        self,
        key: str,
        *,
        above: float | None = None,
        minimum: float | None = None,
        maximum: float | None = None,
        below: float | None = None,
        hint: str = "",
    ) -> float:
        value = self._value(key)
        wanted = " and ".join(
            f"{sign} {bound:g}"
            for sign, bound in ((">", above), (">=", minimum), ("<=", maximum), ("<", below))
            if bound is not None
        )
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or (above is not None and value <= above)
            or (minimum is not None and value < minimum)
            or (maximum is not None and value > maximum)
            or (below is not None and value >= below)
        ):
            self.complain(key, f"must be a number {wanted}. {hint}".rstrip())
            return 1.0
        return float(value)

    def optional_number(self, key: str, **bounds: Any) -> float | None:
        return None if self._value(key) is None else self.number(key, **bounds)

    def refuse_unknown(self, **advice: str) -> None:
        """Complain of every key that nobody read: a misspelt key must not be ignored.

        `advice` says of a key how it comes to be there, where that is known.
        """
        for key in self._section:
            if key in self._read:
                continue
            if key in advice:
                self._problems.append(f"{self._prefix}{key}: {advice[key]}")
            else:
                known = ", ".join(sorted(self._read))
                self._problems.append(f"{self._prefix}{key} is unknown; choose from: {known}")

    def _value(self, key: str) -> Any:
        self._read.add(key)
        if key not in self._section:
            self._problems.append(f"{self._prefix}{key} is missing; see --cfg job for its group's keys")
        return self._section.get(key)
