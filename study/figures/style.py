"""How every figure looks: colours of the regimes, axes, captions; no global state of matplotlib."""

import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from study.cells import REGIMES, provenance
from study.readings import Section
from thermo_ebm.plots import finish, new_figure

# The colours of Okabe and Ito, which most colour-blind readers can distinguish.
REGIME_COLORS = dict(zip(REGIMES, ("#0072B2", "#009E73", "#D55E00"), strict=True))
REGIME_MARKERS = dict(zip(REGIMES, ("o", "s", "^"), strict=True))
CHANGE_COLORS = ("#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#A6761D", "#1B1B1B")
VARIANT_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1B1B1B")
MAX_PANELS = 40
SINGLE = (5.0, 3.0)  # inches, at least, of a panel that is alone
LEGEND_CHARACTERS = 40  # in a line of a legend
_CHARACTER = 0.58  # mean width of a character over the font's size


def new_grid(
    count: int, columns: int, panel: tuple[float, float], share: bool = True
) -> tuple[Figure, list[Axes]]:
    """Returns a figure of `count` equal panels (inches each); panels left over are removed."""
    if count == 1:  # room for the title and the caption
        panel = (max(panel[0], SINGLE[0]), max(panel[1], SINGLE[1]))
    columns = min(count, columns)
    rows = -(-count // columns)
    width, height = panel[0] * columns + 0.6, panel[1] * rows + 0.7
    figure, axes = new_figure(rows, columns, width, height, share)
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[max(0, count - columns) : count]:
        axis.tick_params(labelbottom=True)
    return figure, axes[:count]


def new_titled_grid(
    titles: Sequence[str],
    columns: int,
    panel: tuple[float, float],
    size: float = 8.0,
    share: bool = True,
) -> tuple[Figure, list[Axes]]:
    """As `new_grid`, a panel for each title; the panels grow by the lines of the longest title."""
    width = max(panel[0], SINGLE[0]) if len(titles) == 1 else panel[0]
    lines = [wrapped(title, characters(width - 0.3, size)) for title in titles]
    extra = max(text.count("\n") for text in lines) * 1.3 * size / 72
    figure, axes = new_grid(len(titles), columns, (panel[0], panel[1] + extra), share)
    for axis, text in zip(axes, lines, strict=True):
        axis.set_title(text, fontsize=size)
    return figure, axes


def use_log_scale(axes: Axes, names: str) -> None:
    """Makes the axes of these names ("x", "y" or "xy") logarithmic, with labels 0.1, 0.3, 1, 3.

    Matplotlib's own labels of the numbers between two powers of ten overlap in a small panel.
    """
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def panels_note(total: int) -> str:
    """Returns what a caption says of cells that have no panel; empty where all have one."""
    return f" The first {MAX_PANELS} of {total} cells." if total > MAX_PANELS else ""


def outside_legend(figure: Figure, axes: Sequence[Axes], size: float = 8.0) -> None:
    """Puts one legend of all axes right of them; the figure grows by the legend's size."""
    entries: dict[str, Artist] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    labels = [wrapped(label, LEGEND_CHARACTERS) for label in entries]
    lines = [line for label in labels for line in label.split("\n")]
    width = max(map(len, lines)) * _CHARACTER * size / 72 + 0.6
    height = 1.4 * len(lines) * size / 72 + 1.2
    figure.set_size_inches(figure.get_figwidth() + width, max(figure.get_figheight(), height))
    figure.legend(list(entries.values()), labels, fontsize=size, frameon=False,
                  loc="outside right center")  # fmt: skip


def panel_size(count: int) -> tuple[float, float]:
    """Returns a panel's size in inches: a large one when it is alone."""
    return (5.8, 3.6) if count == 1 else (3.4, 2.8)


def label_rows(axes: Sequence[Axes], title: str) -> None:
    """Names the y axis of the panels in the first column."""
    for axis in axes:
        place = axis.get_subplotspec()
        if place.is_first_col():  # type: ignore[union-attr]
            rows = place.get_gridspec().nrows  # type: ignore[union-attr]
            height = axis.figure.get_figheight() / rows - 0.9  # type: ignore[union-attr]
            axis.set_ylabel(wrapped(title, characters(height, 9.0)), fontsize=9)


def label_columns(axes: Sequence[Axes], title: str, size: float = 9.0) -> None:
    """Names the x axis of the panels whose ticks have labels: the last of each column."""
    for axis in axes:
        if axis.xaxis.get_tick_params().get("labelbottom", True):
            axis.set_xlabel(title, fontsize=size)


def outer_labels(figure: Figure, axes: Sequence[Axes], x: str, y: str) -> None:
    """Names the x axis below each column and the y axis once: the panels are small."""
    label_columns(axes, x, 8.0)
    figure.supylabel(wrapped(y, characters(figure.get_figheight() - 1.2, 9.0)), fontsize=9)


def characters(inches: float, size: float) -> int:
    """How many characters of a font's size (points) a length in inches has room for."""
    return max(int(inches * 72 / (_CHARACTER * size)), 10)


def wrapped(text: str, width: int) -> str:
    """Breaks a label at its commas, and a part that is too long at its spaces."""
    lines = [""]
    for part in text.split(", "):
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        if len(joined) > width and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join(textwrap.fill(line, width, break_long_words=False) for line in lines)


def finish_section(
    figure: Figure, section: Section, cells: pd.DataFrame, title: str, note: str
) -> Figure:
    """Adds the data set to the title, and the gradients and quadrature used to the caption.

    Args:
      figure: the figure.
      section: what it is of.
      cells: the cells that are drawn.
      title: of the figure.
      note: begins the caption.
    """
    return finish(figure, f"{section.title}: {title}", f"{note} {provenance(cells)}")
