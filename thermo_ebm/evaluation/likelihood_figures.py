"""Pictures of a held-out likelihood: the best and the worst images, and histograms of scores."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thermo_ebm.metrics.detection import Detection
from thermo_ebm.plots import GRAY, finish, new_figure

_INLIERS, _OUTLIERS = "#0072B2", "#D55E00"  # distinct for most colour-blind readers
_TITLES = {
    "log_likelihood": "log p(x), nats",
    "tilt": "f(z), nats",
    "pang": "Pang's score, nats",
}


def extremes(
    images: np.ndarray, values: np.ndarray, errors: np.ndarray, title: str, columns: int = 8
) -> Figure:
    """The images of the highest log-likelihood above those of the lowest, each with its value.

    Args:
      images: uint8 [num, height, width, channels].
      values: log p(x), [num], nats.
      errors: their standard errors, [num].
      title: of the figure.
      columns: images in a row; two rows of each kind, fewer where there are fewer images.
    """
    shown = min(2 * columns, len(images) // 2)
    columns = min(columns, shown)
    rows = -(-shown // columns)
    order = np.argsort(-values, kind="stable")
    figure, axes = new_figure(2 * rows, columns, 1.1 * columns + 0.6, 2.7 * rows + 1.0)
    for axis in axes:
        axis.axis("off")
    for first, chosen in ((0, order[:shown]), (rows * columns, order[::-1][:shown])):
        for axis, index in zip(axes[first:], chosen, strict=False):
            _show(axis, images[index])
            axis.set_title(f"{values[index]:.1f} ± {errors[index]:.1g}", fontsize=7)
    caption = (
        f"The {shown} highest log p(x) in the upper half, the {shown} lowest in the lower half, in "
        "nats, each with its standard error."
    )
    return finish(figure, title, caption)


def histograms(
    inliers: Mapping[str, np.ndarray],
    outliers: Mapping[str, np.ndarray],
    found: Mapping[str, Detection],
    labels: Sequence[str],
    title: str,
) -> Figure:
    """Each score of both sets of images, with the areas under its curves.

    Args:
      inliers: scores by name, [num] each.
      outliers: the same of the other images.
      found: how well each score tells the two apart.
      labels: what inliers and outliers are.
      title: of the figure.
    """
    figure, axes = new_figure(1, len(found), 3.4 * len(found) + 0.4, 3.4)
    for axis, (name, one) in zip(axes, found.items(), strict=True):
        # Scores are higher for outliers; a log-likelihood is shown as it is.
        sign = -1 if name == "log_likelihood" else 1
        both = [sign * side[name] for side in (inliers, outliers)]
        edges = np.histogram_bin_edges(np.concatenate(both), 30)
        for values, label, color in zip(both, labels, (_INLIERS, _OUTLIERS), strict=True):
            axis.hist(values, list(edges), density=True, alpha=0.6, label=label, color=color)
        axis.set_xlabel(_TITLES[name], fontsize=8)
        axis.set_yticks([])
        areas = f"AUROC {one.auroc:.3f} ({one.auroc_low:.3f} to {one.auroc_high:.3f})"
        axis.set_title(areas, fontsize=9, color=GRAY)
    axes[0].legend(fontsize=7, frameon=False)
    return finish(figure, title, "Densities of scores; intervals by a bootstrap over images, 95 %.")


def _show(axis: Axes, image: np.ndarray) -> None:
    shown = image[..., 0] if image.shape[-1] == 1 else image
    axis.imshow(shown, cmap="gray", vmin=0, vmax=255)
