"""Sample grids of the cells side by side."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from study.figures import style
from study.settings import Settings, provenance, section_title, short_labels

# Pictures in a samples folder that are not grids of samples.
_NOT_SAMPLES = re.compile(r"real|strip|recon|interpol|latent", re.IGNORECASE)


def sample_grids(pictures: Mapping[str, Path], cells: Mapping[str, Settings]) -> Figure | None:
    """The newest grid of samples of each cell's first repetition, side by side (13 and 20)."""
    read = [(key, _picture(pictures[key])) for key in cells if key in pictures]
    found = [(key, picture) for key, picture in read if picture is not None]
    shown = found[: style.MAX_PANELS]
    if not shown:
        return None
    labels = short_labels(cells)
    figure, axes = style.new_grid(len(shown), 3, (4.2, 2.6), share=False)
    for axis, (key, picture) in zip(axes, shown, strict=True):
        axis.imshow(
            picture, cmap="gray" if picture.ndim == 2 else None, interpolation="antialiased"
        )
        axis.set_axis_off()
        axis.set_title(style.in_pairs(labels[key]), fontsize=8)
    settings = [cells[key] for key, _ in shown]
    title = f"{section_title(settings[0])}: samples"
    note = "Newest grid of samples of each cell's first repetition."
    note += style.panels_note(len(found))
    return style.finish(figure, title, f"{note} {provenance(settings)}")


def newest_samples(folder: Path) -> Path | None:
    """Returns the newest (by its name's numbers) grid of samples in a run's first repetition."""
    paths = [
        path for path in folder.glob("rep_*/samples/*.png") if not _NOT_SAMPLES.search(path.stem)
    ]
    if not paths:
        return None
    first = min(path.parent.parent.name for path in paths)
    return max(
        (path for path in paths if path.parent.parent.name == first),
        key=lambda path: ([int(n) for n in re.findall(r"\d+", path.stem)], path.stem),
    )


def _picture(path: Path) -> np.ndarray | None:
    """Returns a picture's pixels; None for a damaged file, which must not cost the report."""
    try:
        return imread(path)
    except (OSError, SyntaxError, ValueError):  # a SyntaxError is Pillow's for what is no PNG
        return None
