"""Checkpoints of one repetition, by Orbax: saved asynchronously, verified when they are read.

A checkpoint is a flat dictionary of arrays, named by their path in `TrainState`, and a JSON record
with the step, the seconds of the epoch so far, the arrays' shapes and a checksum over them.
"""

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from thermo_ebm.errors import UserError
from thermo_ebm.train.state import TrainState

DAMAGED = "damaged_checkpoints"  # beside the checkpoints' folder


class Checkpoints(NamedTuple):
    """An open folder of checkpoints."""

    manager: ocp.CheckpointManager
    folder: Path


class Restored(NamedTuple):
    """What a checkpoint held."""

    state: TrainState
    seconds: float  # of training in the epoch so far


def open_checkpoints(folder: Path, keep: int | None = None, keep_period: int = 0) -> Checkpoints:
    """Opens a repetition's folder of checkpoints, made if need be.

    Args:
      folder: `rep_XX/checkpoints`.
      keep: how many of the newest are kept; None keeps all.
      keep_period: checkpoints whose step is a multiple of it are kept for good; 0 keeps none.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, keep_period=keep_period or None, enable_async_checkpointing=True
    )
    manager = ocp.CheckpointManager(
        folder.absolute(),
        options=options,
        item_handlers={
            "state": ocp.StandardCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        },
    )
    return Checkpoints(manager, folder)


def save(checkpoints: Checkpoints, state: TrainState, seconds: float) -> None:
    """Saves a replicated state; returns once it is copied off the device, before it is on disk.

    Raises:
      UserError: this save or the one before could not be written (a full disk, say).
    """
    arrays = _flatten(state)
    step = int(arrays["step"].addressable_data(0))
    meta = {
        "step": step,
        "seconds": seconds,
        "checksum": _checksum(arrays),
        "structure": _structure(arrays),
    }
    args = ocp.args.Composite(state=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta))
    with _clear_errors(checkpoints):
        if step in checkpoints.manager.all_steps():
            return  # the same step of the same run: the same state
        checkpoints.manager.save(step, args=args)


def wait(checkpoints: Checkpoints) -> None:
    """Returns when everything saved is on disk. Raises as `save`."""
    with _clear_errors(checkpoints):
        checkpoints.manager.wait_until_finished()


def close(checkpoints: Checkpoints) -> None:
    """Waits, and closes the folder. Raises as `save`."""
    with _clear_errors(checkpoints):
        checkpoints.manager.close()


def steps(checkpoints: Checkpoints) -> list[int]:
    """The steps there are checkpoints of, in order."""
    return sorted(checkpoints.manager.all_steps())


def restore_newest(
    checkpoints: Checkpoints, template: TrainState, sharding: jax.sharding.Sharding
) -> Restored | None:
    """The newest checkpoint that can be read; None where there is none.

    One that is truncated or damaged is moved to `damaged_checkpoints` with a warning.

    Args:
      checkpoints: the folder.
      template: a state of shapes and types, from `jax.eval_shape`.
      sharding: of the restored arrays, on whatever devices there are now.

    Raises:
      UserError: the checkpoint was made by a program whose state has another structure.
    """
    for step in reversed(steps(checkpoints)):
        try:
            return restore(checkpoints.folder, step, template, sharding)
        except UserError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many kinds
            _set_aside(checkpoints, step, error)
    return None


def restore(
    folder: Path, step: int, template: TrainState, sharding: jax.sharding.Sharding
) -> Restored:
    """One checkpoint of a folder, which nothing is changed in.

    Other arguments and errors as of `restore_newest`; a damaged checkpoint raises whatever reading
    it does, ValueError where only its checksum is wrong.
    """
    path = folder.absolute() / str(step)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        meta = reader.restore(path / "meta")
    wanted = _flatten(template)
    _check_structure(path, meta["structure"], _structure(wanted))
    abstract = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        for name, leaf in wanted.items()
    }
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        arrays = reader.restore(path / "state", args=ocp.args.StandardRestore(abstract))
    if _checksum(arrays) != meta["checksum"]:
        raise ValueError("its checksum is wrong")
    return Restored(_unflatten(template, arrays), meta["seconds"])


def _flatten(state: TrainState) -> dict[str, Any]:
    """Arrays by path; the key as its raw words."""
    leaves = jax.tree_util.tree_leaves_with_path(state._replace(key=_key_data(state.key)))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _key_data(key: Any) -> Any:
    if isinstance(key, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, key)
    return jax.random.key_data(key)


def _unflatten(template: TrainState, arrays: dict[str, Any]) -> TrainState:
    structure = jax.tree.structure(template)
    state = jax.tree.unflatten(structure, [arrays[name] for name in _flatten(template)])
    return state._replace(key=jax.random.wrap_key_data(state.key))


def _structure(arrays: dict[str, Any]) -> dict[str, str]:
    return {name: f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for name, leaf in arrays.items()}


def _checksum(arrays: dict[str, jax.Array]) -> int:
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(np.asarray(arrays[name].addressable_data(0)).tobytes(), value)
    return value


def _check_structure(path: Path, found: dict[str, str], wanted: dict[str, str]) -> None:
    differing = [
        f"{name}: {found.get(name, 'absent')} there, {wanted.get(name, 'absent')} here"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        shown = "; ".join(differing[:5]) + ("; ..." if len(differing) > 5 else "")
        raise UserError(
            f"{path}: its state has another structure than this program's ({len(differing)} "
            f"differences: {shown}); go on with the version that made it, or start anew"
        )


def _set_aside(checkpoints: Checkpoints, step: int, error: Exception) -> None:
    source = checkpoints.folder / str(step)
    target = checkpoints.folder.parent / DAMAGED / str(step)
    reason = str(error).split("\n")[0][:200]
    logging.warning("%s cannot be read (%s): moved to %s", source, reason, target)
    if jax.process_index() == 0:
        target.parent.mkdir(exist_ok=True)
        number = 0
        while target.exists():
            number += 1
            target = target.with_name(f"{step}.{number}")
        source.rename(target)
    checkpoints.manager.reload()


@contextlib.contextmanager
def _clear_errors(checkpoints: Checkpoints) -> Iterator[None]:
    """Turns whatever Orbax raises while writing into one clear line."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise UserError(
            f"{checkpoints.folder}: the newest checkpoint could not be written ({reason}); older "
            "ones are intact: make room and run the same command again"
        ) from error
