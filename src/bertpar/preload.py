"""What every job needs and none should pay for: imported, or done once, by the template that jobs are forked from.

It stays fit to be forked: no torch operation, no accelerator, no thread, no connection.
"""

from __future__ import annotations

import gc
import io
import logging
from functools import cache
from importlib import import_module

from bertpar.code import job_code_digest, loaded_code
from bertpar.codec import adapter
from bertpar.spec import RunSpec
from bertpar.tracking.connection import import_mlflow

_IMPORTED_LATE = ("pandas", "sklearn.metrics", "transformers.models.bert.modeling_bert")
"""What libraries import in the midst of their work: at the first step, validation or picture."""

_log = logging.getLogger(__name__)


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
    """Fill the caches that libraries fill at a first call; where one cannot be filled, jobs do it for themselves."""
    for fill in (
        _make_adapters,
        _learn_types,
        _compile_conversion_patterns,
        _find_fonts,
        _read_versions,
        _read_migrations,
    ):
        try:
            fill()
        except Exception as error:
            _log.warning("%s failed, and is left to each job: %s", fill.__name__, error)


def _make_adapters() -> None:
    adapter(RunSpec)


def _learn_types() -> None:
    """Have scikit-learn, which checks what it is given, find out once which types are arrays."""
    import numpy as np

    from bertpar.evaluation.metrics import classification_metrics, per_class_table

    labels_N = np.array([0, 1])
    classification_metrics(np.eye(2, dtype=np.float32), labels_N)
    per_class_table(labels_N, labels_N, ("a", "b"))


def _compile_conversion_patterns() -> None:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("bert")  # a thousand, of all architectures


def _find_fonts() -> None:
    import numpy as np

    from bertpar.evaluation.confusion import draw_confusion_matrix

    draw_confusion_matrix(np.eye(2, dtype=np.int64), ("a", "b"), "", io.BytesIO())


def _read_versions() -> None:
    from bertpar.training.fingerprint import library_versions

    library_versions()


def _read_migrations() -> None:
    """Have MLflow know its newest schema: at each opening of a database it would load sixty files to learn it."""
    from mlflow.store.db import utils

    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)
    utils._get_latest_schema_revision()
