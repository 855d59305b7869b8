"""Makes states durable beside the training: it stops for a copy in memory, and never for the store.

One checkpoint at a time. The next one waits for the one before, and the training with it: its copy needs the room, and
more than two checkpoints' worth of steps should never hang on a store that does not answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from transformers import PreTrainedModel

from bertpar.checkpoints import checkpoint_key
from bertpar.errors import CheckpointMemoryError, PreemptedError, StoreError, is_out_of_memory
from bertpar.events import CheckpointRef, CheckpointSaved, MetricRow
from bertpar.holds import is_held
from bertpar.ranks import current_team
from bertpar.training.attempt import Attempt
from bertpar.training.saving import CheckpointCopy
from bertpar.training.selection import checkpoints_to_prune
from bertpar.training.state import TrainingState

T = TypeVar("T")

_STORAGE_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_SECONDS_UNTIL_SAID = 1.0


class Committer:
    """Commits copies of an attempt's state in a thread of its own. What fails there is raised at the next call.

    `tell_trouble` gets a sentence while something is waited for, and None when it is over; `stop_asked` says whether
    the training is to leave.
    """

    def __init__(
        self, attempt: Attempt, tell_trouble: Callable[[str | None], None], stop_asked: Callable[[], bool]
    ) -> None:
        self._job = attempt.job
        self._spec = attempt.spec.checkpoint
        self._store = attempt.store
        self._fence = attempt.fence
        self._outbox = attempt.outbox
        self._meta = attempt.continuity.meta()
        self._emit = attempt.emit
        self._tell_trouble = tell_trouble
        self._trouble: str | None = None
        self._telling = threading.Lock()
        """Both threads tell: what is told last must be what is remembered."""
        self._stop_asked = stop_asked
        self._copy = CheckpointCopy()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="committer")
        self._pending: Future[None] | None = None

    def begin(self, state: TrainingState, model: PreTrainedModel, optimizer: Mapping[str, Any]) -> None:
        """Copy the state, and begin to make it durable; its rows are handed over. Waits for the checkpoint before.

        Raises:
            CheckpointMemoryError: there is none for the copy.
        """
        self.wait()
        new_rows, state.rows = state.rows, []
        with _want_of_memory_told(state.step):
            self._copy.take(replace(state, rows=[*self._outbox.undelivered(), *new_rows]), model, optimizer)
        self._pending = self._thread.submit(self._commit, state, state.step, new_rows)

    def check(self) -> None:
        """Raise what has failed; return at once where all is well or under way."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Return when nothing is under way.

        Raises:
            CheckpointMemoryError: there is none to write with.
            PreemptedError: asked to stop while the store is away.
            SupersededError: a newer attempt has begun; nothing more is written.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if not wait([pending], _SECONDS_UNTIL_SAID).done and self._trouble is None:
            self._tell("storage: the checkpoint before is still being written")
        pending.result()
        self._tell(None)

    def close(self) -> None:
        """Wait for what is under way, whatever becomes of it: who leaves on a failure leaves no half of it behind."""
        self._thread.shutdown()

    def say_saved(self, saved: CheckpointRef, pruned: Sequence[CheckpointRef] = ()) -> None:
        """Signal a durable checkpoint, and those that it replaces."""
        keys = tuple(checkpoint.key for checkpoint in pruned)
        self._emit("checkpoint", CheckpointSaved(checkpoint=saved, attempt=self._job.attempt, pruned=keys))

    def _tell(self, trouble: str | None) -> None:
        """Tell of the trouble, or that there is none any more."""
        with self._telling:
            if trouble is not None or self._trouble is not None:
                self._trouble = trouble
                self._tell_trouble(trouble)

    def _commit(self, state: TrainingState, step: int, new_rows: Sequence[MetricRow]) -> None:
        """Make the copy durable, say so, and only then delete what it replaces and deliver its metric rows."""
        key = checkpoint_key(self._job.run_id, self._job.attempt, step)
        patiently = partial(self._wait_for_storage, step)

        def save() -> CheckpointRef:
            self._fence.check()
            return self._copy.publish(self._store, key, self._meta)

        with current_team().writing:
            with _want_of_memory_told(step):
                saved = patiently(save)
            patiently(self._fence.check)
            pruned = patiently(lambda: self._to_prune([*state.checkpoints, saved]))
            self.say_saved(saved, pruned)
        state.checkpoints = [c for c in [*state.checkpoints, saved] if c not in pruned]
        for checkpoint in (c for c in pruned if c.run_id == self._job.run_id):  # an equal run's are its own to keep
            needed = partial(is_held, self._store, checkpoint.key)  # somebody may have asked for it this very moment
            patiently(partial(self._store.remove, checkpoint.key, needed))
        self._outbox.post(new_rows)

    def _to_prune(self, checkpoints: Sequence[CheckpointRef]) -> list[CheckpointRef]:
        """Return those that neither the run nor anybody else needs."""
        pruned = checkpoints_to_prune(checkpoints, self._spec)
        return [checkpoint for checkpoint in pruned if not is_held(self._store, checkpoint.key)]

    def _wait_for_storage(self, step: int, work: Callable[[], T]) -> T:
        """Return what `work` returns, once the store lets it: nothing is lost meanwhile, and everybody sees why.

        Raises:
            PreemptedError: asked to stop meanwhile.
        """
        num_failures = 0
        while True:
            try:
                done = work()
            except StoreError as error:
                if self._stop_asked():
                    raise PreemptedError(f"asked to stop while step {step} waits for the store: {error}") from error
                self._tell(f"storage: {error}")
                time.sleep(_STORAGE_RETRY_SECONDS[min(num_failures, len(_STORAGE_RETRY_SECONDS) - 1)])
                num_failures += 1
            else:
                self._tell(None)
                return done


@contextmanager
def _want_of_memory_told(step: int) -> Iterator[None]:
    """Let a lack of memory be the checkpoint's: who only sees that it came up in training takes it for the batch's."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise CheckpointMemoryError(
            f"the checkpoint of step {step}: {type(error).__name__}: {error}. It is made of a copy of the weights and "
            "both moments in the host's memory. Use a machine with more, or fewer slots: --slots (BERTPAR_SLOTS)"
        ) from error
