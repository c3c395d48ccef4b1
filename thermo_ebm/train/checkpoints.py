"""Checkpoints of one repetition, with Orbax: saved asynchronously, read back before older ones are
removed, and verified when read.

`checkpoint_content` describes what a checkpoint holds.

Checkpoints caused by signals are kept in a separate folder beside the scheduled checkpoints. The
scheduled checkpoints, which rollbacks use, are therefore the same whether a run was interrupted or
not.

Older checkpoints are removed here and not by Orbax, which does not read back what it wrote, and
reports a checkpoint that cannot be removed as a failure to save the newest one.
"""

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging

from thermo_ebm import files
from thermo_ebm.errors import UserError, first_line
from thermo_ebm.run.layout import INTERRUPTED
from thermo_ebm.train import checkpoint_content, hosts
from thermo_ebm.train.checkpoint_content import Restored, check_manifest, restore
from thermo_ebm.train.state import TrainState

DAMAGED = "damaged_checkpoints"  # beside the folder of checkpoints, as INTERRUPTED is


class Checkpoints(NamedTuple):
    """An open folder of checkpoints."""

    manager: ocp.CheckpointManager
    folder: Path
    keep: int | None
    keep_period: int
    unread: set[int]  # steps that were saved and not yet read back
    readable: set[int]  # steps that were read back
    irremovable: set[int]  # steps whose removal failed
    plain_path: contextlib.ExitStack  # holds the path through which Orbax reaches `folder`


def open_checkpoints(folder: Path, keep: int | None = None, keep_period: int = 0) -> Checkpoints:
    """Opens a repetition's folder of checkpoints, which is created if needed.

    Args:
      folder: `rep_XX/checkpoints`.
      keep: number of newest checkpoints kept; None keeps all.
      keep_period: checkpoints whose step is a multiple of this number are kept permanently; 0
        keeps none.
    """
    with hosts.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        manager = ocp.CheckpointManager(
            stack.enter_context(files.without_wildcards(folder)),
            options=ocp.CheckpointManagerOptions(enable_async_checkpointing=True),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "meta": ocp.JsonCheckpointHandler(),
            },
        )
        plain_path = stack.pop_all()
    return Checkpoints(manager, folder, keep, keep_period, set(), set(), set(), plain_path)


def save(checkpoints: Checkpoints, state: TrainState, seconds: float) -> None:
    """Saves a replicated state; returns once the state is copied off the device, before it is on
    disk.

    Raises:
      UserError: this save or the one before could not be written (a full disk, say), or the one
        before cannot be read back.
    """
    arrays, record = checkpoint_content.content(state, seconds)
    step = record["step"]
    args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(record))
    wait(checkpoints)
    with _clear_errors(checkpoints):
        if checkpoints.manager.save(step, args=args):
            checkpoints.unread.add(step)


def save_interrupted(checkpoints: Checkpoints, state: TrainState, seconds: float) -> None:
    """Saves an unscheduled state, after a signal, in the folder for such states.

    Returns once the state is on disk; only then the previous one is removed. Raises as `save`.
    """
    aside = open_checkpoints(_interrupted(checkpoints.folder), keep=1)
    try:
        if int(state.step.addressable_data(0)) not in steps(aside):  # otherwise the same state
            save(aside, state, seconds)
    finally:
        close(aside)


def discard_interrupted(checkpoints: Checkpoints) -> None:
    """Removes checkpoints caused by signals, once everything saved since is on disk.

    All processes must call it. Raises as `save`.
    """
    wait(checkpoints)
    with hosts.together():
        if hosts.is_first():
            shutil.rmtree(_interrupted(checkpoints.folder), ignore_errors=True)


def _interrupted(folder: Path) -> Path:
    return folder.parent / INTERRUPTED


def wait(checkpoints: Checkpoints) -> None:
    """Returns when everything saved is on disk and older checkpoints are removed.

    All processes must call it. Raises as `save`.
    """
    with hosts.together():
        with _clear_errors(checkpoints):
            checkpoints.manager.wait_until_finished()
        _read_back(checkpoints)
        _remove_old(checkpoints)


def close(checkpoints: Checkpoints) -> None:
    """Waits, and closes the folder. Raises as `save`."""
    with checkpoints.plain_path:
        with _clear_errors(checkpoints):
            checkpoints.manager.close()
        _read_back(checkpoints)
        _remove_old(checkpoints)


def steps(checkpoints: Checkpoints) -> list[int]:
    """The steps that have checkpoints or are being saved, in order."""
    return sorted({*steps_in(checkpoints.folder), *checkpoints.unread})


def _read_back(checkpoints: Checkpoints) -> None:
    """Reads what was saved; does nothing in other processes than the first.

    Raises:
      UserError: a checkpoint cannot be read.
    """
    while checkpoints.unread:
        step = checkpoints.unread.pop()
        if hosts.is_first():
            with _clear_errors(checkpoints):
                check_manifest(checkpoints.folder / str(step), step)
            checkpoints.readable.add(step)


def _remove_old(checkpoints: Checkpoints) -> None:
    """Removes checkpoints older than the newest `keep` that can be read.

    One that cannot be removed is named in a warning, once. Does nothing in other processes than
    the first.
    """
    if checkpoints.keep is None or not hosts.is_first():
        return
    newer = 0
    for step in reversed(steps_in(checkpoints.folder)):
        is_permanent = checkpoints.keep_period and step % checkpoints.keep_period == 0
        path = checkpoints.folder / str(step)
        if newer < checkpoints.keep:
            newer += _is_readable(checkpoints, step)
        elif not is_permanent and step not in checkpoints.irremovable:
            try:
                shutil.rmtree(path)
            except OSError as error:
                checkpoints.irremovable.add(step)
                reason = error.strerror or first_line(error)
                logging.warning("%s: old checkpoint not removed: %s", path.absolute(), reason)


def _is_readable(checkpoints: Checkpoints, step: int) -> bool:
    if step not in checkpoints.readable:
        try:
            check_manifest(checkpoints.folder / str(step), step)
        except Exception:  # TensorStore raises many kinds
            return False
        checkpoints.readable.add(step)
    return True


def restore_newest(
    checkpoints: Checkpoints,
    template: TrainState,
    sharding: jax.sharding.Sharding,
    due_only: bool = False,
) -> Restored | None:
    """The newest checkpoint that can be read, including those caused by signals.

    Newer, truncated or damaged checkpoints are moved to `damaged_checkpoints` with a warning.

    Args:
      checkpoints: the folder; None is returned where there is no checkpoint at all.
      template: a state of shapes and types, from `jax.eval_shape`.
      sharding: sharding of the restored arrays, over the present devices.
      due_only: ignore checkpoints caused by signals.

    Raises:
      UserError: the checkpoint was made by a program whose state has another structure, or there
        are checkpoints and none can be read (nothing is moved then).
    """
    candidates = [(step, checkpoints.folder) for step in steps(checkpoints)]
    aside = _interrupted(checkpoints.folder)
    candidates += [(step, aside) for step in steps_in(aside) if not due_only]
    restored, damaged = _newest(checkpoints.folder, candidates, template, sharding)
    _set_aside(checkpoints, damaged)
    return restored


def read_newest(
    folder: Path, template: TrainState, sharding: jax.sharding.Sharding
) -> Restored | None:
    """As `restore_newest`, for a folder that may be absent: nothing is opened, moved or written."""
    aside = _interrupted(folder)
    candidates = [(step, place) for place in (folder, aside) for step in steps_in(place)]
    return _newest(folder, candidates, template, sharding)[0]


def _newest(
    folder: Path,
    candidates: list[tuple[int, Path]],
    template: TrainState,
    sharding: jax.sharding.Sharding,
) -> tuple[Restored | None, dict[Path, str]]:
    """The newest of (step, folder) that can be read, and the reasons why newer ones cannot.

    Raises:
      UserError: there are candidates, and none can be read.
    """
    damaged: dict[Path, str] = {}
    # Of two checkpoints at the same step, the scheduled one, which is the later.
    by_age = sorted(candidates, key=lambda candidate: (candidate[0], candidate[1] == folder))
    for step, place in reversed(by_age):
        restored, reason = _try_restore(place, step, template, sharding)
        if restored is not None:
            return restored, damaged
        damaged[place / str(step)] = reason
    if damaged:
        raise UserError(
            f"{folder}: none of its {len(damaged)} checkpoints can be read "
            f"(the newest: {next(iter(damaged.values()))}); to start this repetition anew, "
            f"remove {folder.parent}"
        )
    return None, damaged


def steps_in(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in a folder, in order; none if there is no folder."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def all_steps_in(folder: Path) -> list[int]:
    """`steps_in`, including the checkpoints caused by signals beside that folder."""
    return sorted({*steps_in(folder), *steps_in(_interrupted(folder))})


def _try_restore(
    folder: Path, step: int, template: TrainState, sharding: jax.sharding.Sharding
) -> tuple[Restored | None, str]:
    """A checkpoint that every process could read, or None and the reason of this process."""
    restored, reason = None, "another process could not read it"
    with hosts.together():
        try:
            restored = restore(folder, step, template, sharding)
        except UserError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many kinds
            reason = first_line(error)[:200]
    return (None if hosts.any_of(restored is None) else restored), reason


def _set_aside(checkpoints: Checkpoints, damaged: dict[Path, str]) -> None:
    """Moves checkpoints away; `damaged` has the reason by path. All processes must call it."""
    if not damaged:
        return
    with hosts.together():
        for source, reason in damaged.items() if hosts.is_first() else ():
            target = _unused(checkpoints.folder.parent / DAMAGED / source.name)
            logging.warning("%s cannot be read (%s): moved to %s", source, reason, target)
            try:
                target.parent.mkdir(exist_ok=True)
                source.rename(target)
            except OSError as error:
                raise UserError(f"{source}: cannot be moved away: {error.strerror}") from error
    checkpoints.manager.reload()


def _unused(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
    return path if not path.exists() else next(path for path in numbered if not path.exists())


@contextlib.contextmanager
def _clear_errors(checkpoints: Checkpoints) -> Iterator[None]:
    """Turns any error that Orbax raises while writing into one clear line."""
    try:
        yield
    except Exception as error:
        checkpoints.unread.clear()
        plain, real = str(checkpoints.manager.directory), str(checkpoints.folder.absolute())
        reason, what = first_line(error).replace(plain, real)[:300], "when that is fixed"
        if "No space left" in str(error):  # TensorStore wraps the reason in hundreds of characters
            reason, what = "no space left on device", "make room and"
        raise UserError(
            f"{checkpoints.folder}: the newest checkpoint could not be written ({reason}); older "
            f"ones are intact: {what} run the same command again"
        ) from error
