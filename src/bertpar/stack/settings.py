"""What the user may choose about the local stack, and what it is otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bertpar.errors import ConfigError

SLOTS_VARIABLE = "BERTPAR_SLOTS"
PORT_VARIABLE = "BERTPAR_PORT"
UI_PORT_VARIABLE = "BERTPAR_UI_PORT"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The user's choices for the local stack; None leaves it to bertpar."""

    slots: int | None = None
    """Runs that train at once."""
    port: int | None = None
    """Of the Temporal server."""
    ui_port: int | None = None
    """Of Temporal's web page."""

    def __post_init__(self) -> None:
        if self.slots is not None and self.slots < 1:
            raise ConfigError(f"slots={self.slots} must be >= 1: it is how many runs train at once.")
        for name, port in (("port", self.port), ("ui-port", self.ui_port)):
            if port is not None and not 1 <= port <= 65535:
                raise ConfigError(f"{name}={port} must lie between 1 and 65535.")
        if self.port is not None and self.port == self.ui_port:
            raise ConfigError(f"port and ui-port are both {self.port}; give two different ones.")


def settings_from_environment(environ: Mapping[str, str]) -> Settings:
    """Return the choices made by BERTPAR_SLOTS, BERTPAR_PORT and BERTPAR_UI_PORT.

    Raises:
        ConfigError: one of them is not a number, or out of range.
    """
    return Settings(
        slots=_number(environ, SLOTS_VARIABLE),
        port=_number(environ, PORT_VARIABLE),
        ui_port=_number(environ, UI_PORT_VARIABLE),
    )


def _number(environ: Mapping[str, str], variable: str) -> int | None:
    text = environ.get(variable, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise ConfigError(f"{variable}={text} is not a whole number.")
    return int(text)
