"""A checkpoint's parameters alone, in a file of safetensors that also has the configuration.

The format (huggingface.co/docs/safetensors): the header's length, the header in JSON with the name,
type, shape and place of each array, and the arrays. The configuration is text in its metadata.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from thermo_ebm import files
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.metrics.networks.weights import read_state_dict
from thermo_ebm.run import configuration, layout
from thermo_ebm.types import Params, PyTree

SUFFIX = ".safetensors"
_ALIGNMENT = 8  # bytes to which the header is filled with spaces
_FORMAT = "thermo_ebm 1"
_DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int32": "I32"}


class Exported(NamedTuple):
    """The content of a file."""

    config: dict[str, Any]  # nested fields
    repetition: int
    step: int
    arrays: dict[str, np.ndarray]  # by the names of `_named`
    kind: str = layout.LAST  # or AVERAGED


def find(path: Path) -> Path | None:
    """The file of a path, which may lack the suffix; None for a run directory or nothing.

    What programs write about `trained/digits.safetensors` is in a folder `trained/digits`.
    """
    if path.is_file():
        return path
    file = path.with_name(f"{path.name}{SUFFIX}")
    return file if file.is_file() and not (path / layout.CONFIG).exists() else None


def write(
    path: Path,
    config: dict[str, Any],
    repetition: int,
    step: int,
    params: Params,
    kind: str = layout.LAST,
) -> None:
    """Writes parameters with the configuration and the checkpoint that they come from.

    Args:
      path: the file, replaced if it is there.
      config: the run's fields, nested dicts as JSON has them.
      repetition: of the checkpoint.
      step: of the checkpoint.
      params: alpha and beta.
      kind: of the parameters, "last" or "averaged".

    Raises:
      UserError: the file cannot be written.
    """
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(config),
        "repetition": str(repetition),
        "step": str(step),
        "parameters": kind,
    }
    header: dict[str, Any] = {"__metadata__": metadata}
    content = bytearray()
    for name, leaf in _named(params).items():
        array = np.ascontiguousarray(leaf)
        end = len(content) + array.nbytes
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(content), end],
        }
        content += array.astype(array.dtype.newbyteorder("<")).tobytes()
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    try:
        files.write_bytes(path, len(encoded).to_bytes(8, "little") + encoded + content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def read(path: Path) -> Exported:
    """Reads a file that `write` wrote.

    Raises:
      UserError: it cannot be read, is damaged, or is no such file.
    """
    try:
        arrays = read_state_dict(path)
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        metadata = header["__metadata__"]
        if metadata["format"] != _FORMAT:
            raise ValueError(f"its format is {metadata['format']!r}, this program's {_FORMAT!r}")
        config = configuration.complete(json.loads(metadata["config"]))
        numbers = int(metadata["repetition"]), int(metadata["step"])
        return Exported(config, *numbers, arrays, metadata.get("parameters", layout.LAST))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        reason = "it has no configuration" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"{path}: is not an exported run: {reason}") from error


def restore(path: Path, exported: Exported, template: PyTree) -> Params:
    """The parameters with the structure of a model's.

    Args:
      path: of the file, for messages.
      exported: from `read`.
      template: the shapes and types of the parameters, `jax.eval_shape(model.init)`.

    Raises:
      UserError: the arrays are not those of the model.
    """
    named = _named(template)
    shapes = {name: (leaf.shape, str(leaf.dtype)) for name, leaf in named.items()}
    present = {name: (array.shape, str(array.dtype)) for name, array in exported.arrays.items()}
    if shapes != present:
        differing = sorted(
            name for name in shapes | present if shapes.get(name) != present.get(name)
        )
        raise UserError(f"{path}: {differing[0]} is not that of the model of its configuration")
    leaves = [jax.numpy.asarray(exported.arrays[name]) for name in named]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _named(tree: PyTree) -> dict[str, Any]:
    """The leaves by their paths, such as "generator.layer_0.w"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
