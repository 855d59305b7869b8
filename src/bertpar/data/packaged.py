"""The datasets that are shipped inside bertpar: one compressed file each, its licence beside it."""

from __future__ import annotations

from pathlib import Path

_FILES = {"movie_reviews": "movie_reviews.tsv.gz"}

NAMES: tuple[str, ...] = tuple(sorted(_FILES))
"""What `data.path` may be for `data.source=packaged`."""


def packaged_file(name: str) -> Path:
    """Return the file of the packaged dataset `name`, one of NAMES."""
    return Path(__file__).parent / _FILES[name]
