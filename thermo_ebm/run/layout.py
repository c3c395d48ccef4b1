"""The layout of a run directory: names of files and folders, and checks of the folder."""

import errno
import os
from pathlib import Path

from thermo_ebm.errors import UserError

# In the run's folder.
CONFIG, CHANGES, VERSIONS = "config.json", "changes.json", "versions.json"
IMAGES, VALIDATION_IMAGES = "images.json", "validation_images.json"
INIT_FROM = "init_from.npz"
MODEL = "model.json"  # where a run's own networks come from
LOCK = ".lock"
PROFILE = "profile"  # folder of the traces of JAX's profiler
# In the folder of a repetition.
CHECKPOINTS = "checkpoints"
INTERRUPTED = "interrupted"  # folder of the checkpoint that a signal caused
READINGS, TEMPERATURES, EVALUATIONS = "readings.csv", "temperatures.csv", "eval.csv"
EVALUATION_LOCK = ".eval.lock"
ROLLBACKS = "rollbacks.json"
DIAGNOSTICS = "diagnostics.csv"  # diagnostics of the chains, where they were requested
SAMPLES, TENSORBOARD = "samples", "tensorboard"
LIKELIHOOD = "likelihood.csv"  # log p(x) of each validation image
LIKELIHOOD_FOLDER = "likelihood"  # settings, further tables and pictures of log p(x)
LIKELIHOOD_SETTINGS = "likelihood/settings.json"
LIKELIHOOD_SUMMARY = "likelihood/summary.json"
SIMULATED = "likelihood/simulated.csv"  # bounds on log p(x) of images of the model
DRAWN = "drawn"  # folder of pictures of samples and reconstructions
LAST, AVERAGED = "last", "averaged"  # parameters after the last update, and averaged over updates
BEST = "best"  # folder of the best checkpoint, and the name by which it is chosen
BEST_RECORD = "best.json"  # in the folder of the best checkpoint


def repetition_dir(workdir: str | os.PathLike[str], repetition: int) -> Path:
    """Returns the folder of repetition `repetition`, counted from 0; creates nothing.

    What is written of an exported run, which is a file, has the file's name without its suffix.
    """
    folder = Path(workdir)
    return (folder.with_suffix("") if folder.is_file() else folder) / f"rep_{repetition:02d}"


def outputs_dir(workdir: str | os.PathLike[str], repetition: int, parameters: str) -> Path:
    """Returns the folder of what is drawn and estimated with `LAST` or `AVERAGED` parameters."""
    folder = repetition_dir(workdir, repetition)
    return folder / AVERAGED if parameters == AVERAGED else folder


def checkpoints_dir(workdir: str | os.PathLike[str], repetition: int) -> Path:
    """Returns the folder of a repetition's checkpoints; creates nothing."""
    return repetition_dir(workdir, repetition) / CHECKPOINTS


def evaluation_points(repetition: Path, network: str) -> Path:
    """Returns the file of the points of a network's extrapolations in a repetition's folder."""
    return repetition / f"eval_points_{network}.csv"


def likelihood_against(repetition: Path, name: str) -> Path:
    """Returns the table of log p(x) of other images, called `name`, in a repetition's folder."""
    return repetition / LIKELIHOOD_FOLDER / f"against_{name}.csv"


def repetitions(workdir: str | os.PathLike[str]) -> list[int]:
    """Returns the numbers of the repetitions that have a folder, in order."""
    names = [path.name for path in Path(workdir).glob("rep_[0-9]*")]
    return sorted(int(name[4:]) for name in names if name[4:].isdigit())


def has_begun(workdir: str | os.PathLike[str]) -> bool:
    """Whether any repetition has begun; from then on the configuration is binding."""
    return any(Path(workdir).glob("rep_*"))


def run_folder(workdir: str | os.PathLike[str], make: bool = True) -> Path:
    """Checks that the folder is absent, empty (hidden files aside) or a run directory.

    Args:
      workdir: the folder.
      make: whether to create an absent folder; otherwise nothing is written, and the check is
        whether the folder could be created or written.

    Raises:
      UserError: it cannot be created, or holds other files.
    """
    folder = Path(workdir)
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            check_writable(folder)
        listed = os.listdir(folder) if folder.exists() else []
        names = [name for name in listed if not name.startswith(".")]
    except OSError as error:
        raise UserError(
            f"workdir={folder}: the folder cannot be created or read: {error.strerror}"
        ) from error
    if names and CONFIG not in names:
        raise UserError(
            f"workdir={folder}: neither empty nor a run directory (no {CONFIG}); choose another "
            "folder"
        )
    return folder


def check_writable(folder: Path) -> None:
    """Checks that a folder, or the one in which it would be created, can be written.

    Raises:
      OSError: it cannot.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(existing))
