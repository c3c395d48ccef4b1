"""The figure of what training cost."""

import pandas as pd
from matplotlib.figure import Figure

from study.figures import style
from study.settings import (
    cells_of,
    provenance,
    regime,
    section_title,
    short_labels,
)

_KEYS = ["cell", "run", "repetition"]


def cost(frame: pd.DataFrame) -> Figure | None:
    """Training time and counted FLOPs of each cell (14 and 15); None for fewer than two cells."""
    cells = cells_of(frame)
    parts = [part for part in (_time(frame), _work(frame)) if part is not None]
    if not parts or len(cells) < 2:
        return None
    labels = short_labels(cells)
    height = 1.3 + 0.24 * len(cells)
    figure, axes = style.new_figure(1, len(parts), 2.2 + 3.4 * len(parts), height, (False, True))
    for axis, (title, values) in zip(axes, parts, strict=True):
        mean = values.groupby("cell").mean().reindex(list(cells))
        error = values.groupby("cell").std().reindex(list(cells)).fillna(0.0)
        colors = [style.REGIME_COLORS[regime(s)] for s in cells.values()]
        axis.barh(range(len(cells)), mean, xerr=error, color=colors, alpha=0.75,
                  error_kw={"elinewidth": 0.9})  # fmt: skip
        axis.set_xlabel(title, fontsize=9)
        axis.set_yticks(range(len(cells)), list(labels.values()), fontsize=7.5)
        axis.set_ylim(len(cells) - 0.4, -0.6)
    settings = list(cells.values())
    single = frame.groupby(_KEYS).ngroups == len(cells)
    note = "One repetition per cell." if single else "Means over repetitions."
    if any("FLOP" in title for title, _ in parts):
        note += " FLOPs are counted from the program, loops by their trip counts."
    title = f"{section_title(settings[0])}: cost of training"
    return style.finish(figure, title, f"{note} {provenance(settings)}")


def _time(frame: pd.DataFrame) -> tuple[str, pd.Series] | None:
    """Returns the axis title and each repetition's training time."""
    if "seconds" not in frame or not frame["seconds"].notna().any():
        return None
    seconds = frame.groupby(_KEYS)["seconds"].sum()
    hours = seconds.max() > 1800.0
    return (
        ("training time (h)", seconds / 3600.0) if hours else ("training time (min)", seconds / 60)
    )


def _work(frame: pd.DataFrame) -> tuple[str, pd.Series] | None:
    """Returns the axis title and the counted arithmetic of each repetition, or of one step."""
    if "flops_per_step" not in frame or not (frame["flops_per_step"] > 0.0).any():
        return None
    flops = frame.groupby(_KEYS)["flops_per_step"].last()
    if "step" not in frame:
        return "counted work of a step (GFLOP)", flops / 1e9
    work = flops * frame.groupby(_KEYS)["step"].max()
    prefix, scale = ("P", 1e15) if work.max() > 1e14 else ("G", 1e9)
    return f"counted work of training ({prefix}FLOP)", work / scale
