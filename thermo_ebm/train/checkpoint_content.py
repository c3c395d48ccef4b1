"""The content of one checkpoint: arrays and a record, and how both are read and verified.

The arrays are a flat dictionary, named by their path in `TrainState`. The record is JSON with the
step, the seconds of the epoch so far, the arrays' shapes and two checksums: one over the arrays,
one over the record.
"""

import json
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.train.state import TrainState
from thermo_ebm.types import Params, PyTree

# Versions may differ in which readings they sum, and in what they remember of the noise.
_READING = "sums.readings."
_OF_VERSION = (_READING, "gradient_noise.")


class Restored(NamedTuple):
    """The content of a checkpoint."""

    state: TrainState
    seconds: float  # of training in the epoch so far


def content(state: TrainState, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and the record of a checkpoint of a replicated state."""
    arrays = flatten(state)
    record = {
        "step": int(arrays["step"].addressable_data(0)),
        "seconds": seconds,
        "checksum": _checksum(arrays),
        "structure": _structure(arrays),
    }
    return arrays, record | {"record_checksum": _record_checksum(record)}


def restore(
    folder: Path, step: int, template: TrainState, sharding: jax.sharding.Sharding
) -> Restored:
    """One checkpoint of a folder; the folder is not changed.

    Args:
      folder: of checkpoints.
      step: of the checkpoint.
      template: a state of shapes and types, from `jax.eval_shape`.
      sharding: sharding of the restored arrays, over the present devices.

    Raises:
      UserError: the checkpoint was made by a program whose state has another structure.
      ValueError: its checksum is wrong. Other damage raises the error of reading it.
    """
    path = folder.absolute() / str(step)
    record, expected = _read_record(path, step), flatten(template)
    stored = record["structure"]
    absent = {name for name in expected if name.startswith(_OF_VERSION) and name not in stored}
    removed = {name for name in stored if name.startswith(_OF_VERSION) and name not in expected}
    _check_structure(
        path,
        {name: what for name, what in stored.items() if name not in removed},
        _structure({name: leaf for name, leaf in expected.items() if name not in absent}),
    )
    arrays = _read_arrays(path, record, sharding)
    # Steps that were summed without a reading leave this epoch's mean undefined.
    sum_so_far = np.float32(np.nan if int(arrays["sums.steps"].addressable_data(0)) else 0.0)
    values = {n: sum_so_far if n.startswith(_READING) else np.float32(0) for n in absent}
    arrays |= jax.device_put(values, sharding)
    leaves = [arrays[name] for name in expected]
    state = jax.tree.unflatten(jax.tree.structure(template), leaves)
    return Restored(state._replace(key=jax.random.wrap_key_data(state.key)), record["seconds"])


def restore_field(
    folder: Path, step: int, field: str, template: PyTree, sharding: jax.sharding.Sharding
) -> PyTree:
    """One field of a checkpoint's state, such as "params".

    Arguments and errors as for `restore`; `template` is that of the field.
    """
    path = folder.absolute() / str(step)
    record, expected = _read_record(path, step), _named(template, f"{field}.")
    stored = {name: what for name, what in record["structure"].items() if name in expected}
    _check_structure(path, stored, _structure(expected))
    arrays = _read_arrays(path, record, sharding)
    return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in expected])


def check_manifest(path: Path, step: int) -> None:
    """Reads a checkpoint's record and manifest, which must list the arrays in the record.

    Raises:
      ValueError: an array is absent or has another shape, or the record is damaged.
      OSError: there is no record.
    """
    structure = _read_record(path, step)["structure"]
    base = {"driver": "file", "path": f"{path.absolute() / 'state'}/"}
    manifest = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    for name, what in structure.items():
        stored = manifest.read(f"{name}/.zarray").result().value
        shape = json.loads(stored)["shape"] if stored else "absent"
        if shape != _dtype_and_shape(what)[1]:
            raise ValueError(f"read back, {path.name} has {name} {shape} for {what}")


def _read_record(path: Path, step: int) -> dict[str, Any]:
    record = json.loads((path / "meta" / "metadata").read_text())
    if record.pop("record_checksum", None) != _record_checksum(record) or record["step"] != step:
        raise ValueError("its record's checksum is wrong")
    return record


def _read_arrays(
    path: Path, record: dict[str, Any], sharding: jax.sharding.Sharding
) -> dict[str, jax.Array]:
    """All arrays by name, with the shapes and types in the record."""
    abstract = {}
    for name, what in record["structure"].items():
        dtype, shape = _dtype_and_shape(what)
        abstract[name] = jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=sharding)
    with (
        files.without_wildcards(path.parent) as folder,
        ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader,
    ):
        state = folder / path.name / "state"
        arrays = reader.restore(state, args=ocp.args.StandardRestore(abstract))
    if _checksum(arrays) != record["checksum"]:
        raise ValueError("its checksum is wrong")
    return arrays


def flatten(state: TrainState) -> dict[str, Any]:
    """Arrays by path; the key as its raw words."""
    return _named(state._replace(key=_key_data(state.key)))


def named_params(params: Params) -> dict[str, Any]:
    """Parameters, or their shapes, by the names that they have in a checkpoint."""
    return _named(params, "params.")


def params_from(template: Params, arrays: Mapping[str, Any]) -> Params:
    """The inverse of `named_params`; `template` has the structure."""
    return jax.tree.unflatten(
        jax.tree.structure(template), [arrays[name] for name in named_params(template)]
    )


def _named(tree: Any, prefix: str = "") -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = partial(jax.tree_util.keystr, simple=True, separator=".")
    return {prefix + name(path): leaf for path, leaf in leaves}


def _key_data(key: Any) -> Any:
    if isinstance(key, jax.ShapeDtypeStruct):
        return jax.eval_shape(jax.random.key_data, key)
    return jax.random.key_data(key)


def _structure(arrays: dict[str, Any]) -> dict[str, str]:
    return {name: f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for name, leaf in arrays.items()}


def _dtype_and_shape(what: str) -> tuple[np.dtype, list[int]]:
    """The inverse of `_structure`, for one array."""
    dtype, _, sizes = what.partition("[")
    return np.dtype(dtype), json.loads(f"[{sizes}")


def _checksum(arrays: dict[str, jax.Array]) -> int:
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(np.asarray(arrays[name].addressable_data(0)).tobytes(), value)
    return value


def _record_checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _check_structure(path: Path, stored: dict[str, str], expected: dict[str, str]) -> None:
    differing = [
        f"{name}: {stored.get(name, 'absent')} there, {expected.get(name, 'absent')} here"
        for name in sorted(stored.keys() | expected.keys())
        if stored.get(name) != expected.get(name)
    ]
    if differing:
        examples = "; ".join(differing[:5]) + ("; ..." if len(differing) > 5 else "")
        raise UserError(
            f"{path}: its state has a different structure than this program's ({len(differing)} "
            f"differences: {examples}); continue with the version that made it, or start a new run"
        )
