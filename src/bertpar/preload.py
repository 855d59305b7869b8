"""What every job needs and none should pay for: imported, or done once, by the template that jobs are forked from.

It stays fit to be forked: no torch operation, no accelerator, no thread, no connection.
"""

from __future__ import annotations

import gc
import io
from importlib import import_module

from bertpar.code import job_code_digest, loaded_code
from bertpar.tracking.connection import import_mlflow

_IMPORTED_LATE = ("pandas", "sklearn.metrics", "transformers.models.bert.modeling_bert")
"""What libraries import in the midst of their work: at the first step, validation or picture."""


def preload() -> None:
    """Import what jobs import, and have libraries do what they do at their first call.

    Raises:
        RuntimeError: bertpar's source was changed meanwhile: what is loaded could be a mixture.
    """
    loaded = loaded_code()
    import torch

    import bertpar.data.snapshot
    import bertpar.evaluation.evaluate
    import bertpar.evaluation.predict
    import bertpar.training.run  # noqa: F401

    if job_code_digest() != loaded.digest:
        raise RuntimeError("bertpar's code was changed while it was loaded")
    torch.set_num_threads(1)  # with more, a forked child's own threads can hang
    for name in _IMPORTED_LATE:
        import_module(name)
    import_mlflow()
    _do_what_libraries_do_once()
    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, pages that children share


def _do_what_libraries_do_once() -> None:
    """Fill the caches that libraries fill at a first call."""
    import numpy as np
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from bertpar.evaluation.confusion import draw_confusion_matrix

    get_checkpoint_conversion_mapping("bert")  # compiles a thousand patterns, of all architectures
    draw_confusion_matrix(np.eye(2, dtype=np.int64), ("a", "b"), "", io.BytesIO())  # fonts
