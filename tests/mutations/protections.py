"""The protections that durability rests on, and how to remove each."""

from __future__ import annotations

from tests.mutations.attempts import ATTEMPTS
from tests.mutations.files import FILES
from tests.mutations.protection import Protection
from tests.mutations.resumption import RESUMPTION
from tests.mutations.reuse import REUSE
from tests.mutations.slots import SLOTS
from tests.mutations.stack import STACK
from tests.mutations.steering import STEERING
from tests.mutations.tracking import TRACKING

PROTECTIONS: tuple[Protection, ...] = (
    *RESUMPTION,
    *FILES,
    *ATTEMPTS,
    *SLOTS,
    *TRACKING,
    *STACK,
    *STEERING,
    *REUSE,
)
