"""The picture of a confusion matrix. Shapes: C classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

_MOST_CLASSES_WITH_NUMBERS = 20
_LONGEST_LABEL = 24


def draw_confusion_matrix(
    counts_CC: npt.NDArray[np.int64], label_names: Sequence[str], title: str, target: Path | IO[bytes]
) -> None:
    """Write a PNG: rows are labels, columns predictions; shades are shares of the row, numbers counts.

    What the shades mean stands in the cells, and beside them where there are too many classes for that.
    """
    # Figure and canvas, not pyplot: no global state, and no display is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_classes = len(label_names)
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    side = min(3.2 + 0.55 * num_classes, 16.0)
    figure = Figure(figsize=(side + 1.0, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
    names = [name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…" for name in label_names]
    inches_per_class = 0.75 * side / num_classes
    tilted = 0.09 * max(map(len, names)) > inches_per_class
    axes.set_xticks(
        range(num_classes),
        names,
        rotation=45 if tilted else 0,
        ha="right" if tilted else "center",
        parse_math=False,
    )
    axes.set_yticks(range(num_classes), names, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="label")
    axes.set_title(title, fontsize="medium", parse_math=False)
    if num_classes <= _MOST_CLASSES_WITH_NUMBERS:
        for row, column in np.ndindex(counts_CC.shape):
            share = shares_CC[row, column]
            text = f"{counts_CC[row, column]:,}\n{share:.0%}"
            axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.55 else "#333333")
    else:
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the label's examples")
        bar.outline.set_visible(False)
    figure.savefig(target)
