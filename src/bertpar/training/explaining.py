"""What is told of a step or validation that fails: which one it was, and of which examples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bertpar.data.snapshot import SplitData
from bertpar.errors import BertparError, NotANumberError, OutOfMemoryError, is_out_of_memory
from bertpar.training.module import Classifier
from bertpar.training.plan import BatchPlan

_MAX_ROWS_TOLD = 8


@contextmanager
def explaining_failures(module: Classifier, plan: BatchPlan, data: SplitData) -> Iterator[None]:
    """Let failures of a step say which step, and of which examples.

    Raises:
        NotANumberError, OutOfMemoryError: with the step at which it happened.
    """
    try:
        yield
    except NotANumberError as error:
        step = error.step or module.step + 1
        raise _at_step(NotANumberError(f"{error} {_examples_of(step, plan, data)}"), step) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _at_step(OutOfMemoryError(_of_which_batch(error, module, plan)), module.step + 1) from error


def _at_step(error: BertparError, step: int) -> BertparError:
    error.step = step
    return error


def _of_which_batch(error: Exception, module: Classifier, plan: BatchPlan) -> str:
    """Return what there was no memory for, and the fix."""
    trainer = module.spec.trainer
    if module.is_validating:
        size = plan.cut(trainer.eval_batch_size)
        return f"validation after step {module.step}, batches of {size}: {error}. Lower trainer.eval_batch_size"
    size = plan.micro_batch_size(trainer.devices)
    fix = "Lower trainer.batch_size, and raise trainer.accumulate as much"
    return f"step {module.step + 1}, micro-batches of {size}: {error}. {fix}"


def _examples_of(step: int, plan: BatchPlan, data: SplitData) -> str:
    row_ids = [data.row_id(int(i)) for part in plan.micro_batches(step) for i in part]
    more = "" if len(row_ids) <= _MAX_ROWS_TOLD else f" and {len(row_ids) - _MAX_ROWS_TOLD} more"
    return f"(its examples: rows {', '.join(row_ids[:_MAX_ROWS_TOLD])}{more})"
