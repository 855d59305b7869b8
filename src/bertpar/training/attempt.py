"""An attempt at a run's training, as all that trains, keeps and tells on its behalf knows it."""

from __future__ import annotations

from bertpar.events import TrainJob
from bertpar.jobs import Emit
from bertpar.spec import RunSpec
from bertpar.store import Store
from bertpar.training.continuity import Continuity
from bertpar.training.fence import Fence
from bertpar.training.outbox import Outbox


class Attempt:
    """What is to be done, where it is kept, what stops others from writing, and who is told."""

    def __init__(self, job: TrainJob, spec: RunSpec, store: Store, fence: Fence, emit: Emit) -> None:
        self.job = job
        self.spec = spec
        self.store = store
        self.fence = fence
        self.emit = emit
        self.notes: list[str] = []
        """What the user should know, oldest first."""
        self.outbox = Outbox(job, store, fence, self.note)
        self.continuity = Continuity(job, spec)

    def note(self, text: str) -> None:
        """Tell the worker's log now, and the user with the next progress."""
        self.notes.append(text)
        self.emit("note", text)

    def close(self) -> None:
        """Deliver what can be delivered now."""
        self.outbox.close()
