"""Pictures of log p(x): the best and the worst images, and histograms of scores."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from thermo_ebm.evaluation.likelihood.tables import SCORES, Row
from thermo_ebm.metrics.detection import Detection
from thermo_ebm.plots import GRAY, finish, new_figure

_INLIERS, _OUTLIERS = "#0072B2", "#D55E00"  # distinct for most colour-blind readers
_TITLES = {
    "log_marginal_likelihood": "log p(x), nats",
    "tilt": "f(z), nats",
    "pang": "Pang's score, nats",
}


def extremes(images: np.ndarray, rows: Sequence[Row], title: str, columns: int = 8) -> Figure:
    """The images of the highest log p(x) above those of the lowest, each with its value.

    Args:
      images: uint8 [num, height, width, channels].
      rows: their rows of a table, [num].
      title: of the figure.
      columns: images in a row; two rows of each kind, fewer where there are fewer images.
    """
    num = min(2 * columns, len(images) // 2)
    columns = min(columns, num)
    grid_rows = -(-num // columns)
    values = np.array([row["log_marginal_likelihood"] for row in rows])
    order = np.argsort(-values, kind="stable")
    figure, axes = new_figure(2 * grid_rows, columns, 1.1 * columns + 0.6, 2.7 * grid_rows + 1.0)
    for axis in axes:
        axis.axis("off")
    for first, numbers in ((0, order[:num]), (grid_rows * columns, order[::-1][:num])):
        for axis, number in zip(axes[first:], numbers, strict=False):
            image = images[number, ..., 0] if images.shape[-1] == 1 else images[number]
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"{values[number]:.1f} ± {rows[number]['stderr']:.1g}", fontsize=7)
    caption = (
        f"The {num} highest log p(x) in the upper half, the {num} lowest in the lower half, in "
        "nats, each with its standard error."
    )
    return finish(figure, title, caption)


def histograms(
    inliers: list[Row],
    outliers: list[Row],
    detections: Mapping[str, Detection],
    labels: Sequence[str],
    title: str,
) -> Figure:
    """Each score of both sets of images, with the areas under its curves.

    Args:
      inliers: rows of a table.
      outliers: rows of the table of the other images.
      detections: how well each of `SCORES` tells the two apart.
      labels: what inliers and outliers are.
      title: of the figure.
    """
    figure, axes = new_figure(1, len(detections), 3.4 * len(detections) + 0.4, 3.4)
    for axis, (name, detection) in zip(axes, detections.items(), strict=True):
        # Scores are higher for outliers; log p(x) and f(z) are shown with their usual signs.
        sign = 1 if name == "pang" else -1
        scores = [sign * SCORES[name](rows) for rows in (inliers, outliers)]
        edges = np.histogram_bin_edges(np.concatenate(scores), 30)
        for values, label, color in zip(scores, labels, (_INLIERS, _OUTLIERS), strict=True):
            axis.hist(values, list(edges), density=True, alpha=0.6, label=label, color=color)
        axis.set_xlabel(_TITLES[name], fontsize=8)
        axis.set_yticks([])
        interval = f"{detection.auroc_low:.3f} to {detection.auroc_high:.3f}"
        axis.set_title(f"AUROC {detection.auroc:.3f} ({interval})", fontsize=9, color=GRAY)
    axes[0].legend(fontsize=7, frameon=False)
    return finish(figure, title, "Densities of scores; intervals by a bootstrap over images, 95 %.")
