"""Labels beside points, placed where they cover neither points nor each other."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

_LABEL_SIZE = 7.0  # points
_Box = tuple[float, float, float, float]  # left, bottom, right, top in points


def annotate(axis: Axes, last: pd.DataFrame, labels: Mapping[str, str], metric: str) -> None:
    """Writes a label beside each cell's mean, where it covers least of points and other labels."""
    means = last.groupby("cell")[["train_grad_var", metric]].mean().loc[list(labels)].dropna()
    axis.autoscale_view()
    points = axis.transData.transform(means.to_numpy()) * 72 / axis.figure.dpi
    taken = [_box(point, (-4.0, -4.0), 8.0, 8.0) for point in points]
    for key, point, place in zip(means.index, points, means.to_numpy(), strict=True):
        width = 0.6 * _LABEL_SIZE * len(labels[key])
        offsets = [(x, y) for y in (4.0, -11.0, 13.0, -20.0) for x in (5.0, -5.0 - width)]
        boxes = [_box(point, offset, width, _LABEL_SIZE) for offset in offsets]
        covered = [sum(_overlap(box, other) for other in taken) for box in boxes]
        best = int(np.argmin(covered))
        taken.append(boxes[best])
        note = axis.annotate(
            labels[key],
            place,
            xytext=offsets[best],
            textcoords="offset points",
            fontsize=_LABEL_SIZE,
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
            zorder=5,
        )
        note.set_in_layout(False)  # a long label must not squeeze the axes


def _box(point: np.ndarray, offset: tuple[float, float], width: float, height: float) -> _Box:
    x, y = point + offset
    return x, y, x + width, y + height


def _overlap(one: _Box, other: _Box) -> float:
    """The area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
