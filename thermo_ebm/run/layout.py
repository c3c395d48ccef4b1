"""The layout of a run directory: names of files and folders, and checks of the folder."""

import os
from pathlib import Path

from thermo_ebm.errors import UserError

CONFIG, CHANGES = "config.json", "changes.json"
IMAGES, VALIDATION_IMAGES = "images.json", "validation_images.json"
SKIPPED = "skipped_images.json"
VERSIONS = "versions.json"
READINGS, TEMPERATURES, EVALUATIONS = "readings.csv", "temperatures.csv", "eval.csv"
ROLLBACKS = "rollbacks.json"
DIAGNOSTICS = "diagnostics.csv"  # diagnostics of the chains, where they were requested
STRIP = "samples/strip.npz"


def repetition_dir(workdir: str | os.PathLike[str], repetition: int) -> Path:
    """Returns the folder of repetition `repetition`, counted from 0; creates nothing."""
    return Path(workdir) / f"rep_{repetition:02d}"


def checkpoints_dir(workdir: str | os.PathLike[str], repetition: int) -> Path:
    """Returns the folder of a repetition's checkpoints; creates nothing."""
    return repetition_dir(workdir, repetition) / "checkpoints"


def has_begun(workdir: str | os.PathLike[str]) -> bool:
    """Whether any repetition has begun; from then on the configuration is binding."""
    return any(Path(workdir).glob("rep_*"))


def run_folder(workdir: str | os.PathLike[str]) -> Path:
    """Creates the folder, or checks that it is empty or a run directory, hidden files aside."""
    folder = Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise UserError(f"workdir={folder}: the folder cannot be created: {error}") from error
    if names and CONFIG not in names:
        raise UserError(
            f"workdir={folder}: neither empty nor a run directory (no {CONFIG}); choose another "
            "folder"
        )
    return folder
