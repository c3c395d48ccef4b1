"""Figures on canvases of their own: no global state of matplotlib."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

GRAY = "#555555"
CAPTION_SIZE = 7.5  # points


def new_figure(
    rows: int = 1,
    columns: int = 1,
    width: float = 6.4,
    height: float = 4.2,
    share: bool | tuple[bool, bool] = False,
) -> tuple[Figure, list[Axes]]:
    """Returns a figure (inches) and its axes, row by row.

    Args:
      rows, columns: of axes.
      width, height: of the figure, inches.
      share: whether all axes share their x and their y axis.
    """
    share_x, share_y = share if isinstance(share, tuple) else (share, share)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
    for axis in grid.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(visible=True, color="#DDDDDD", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=8)
    return figure, list(grid.flat)


def finish(figure: Figure, title: str, caption: str) -> Figure:
    """Adds a title above and a caption below a figure, both wrapped to its width."""
    inches = figure.get_figwidth()
    figure.suptitle("\n".join(textwrap.wrap(title, int(inches * 11.5))), fontsize=11)
    text = "\n".join(textwrap.wrap(caption, int(inches * 17)))
    figure.supxlabel(text, fontsize=CAPTION_SIZE, color=GRAY, x=0.01, ha="left")
    return figure
