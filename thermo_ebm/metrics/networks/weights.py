"""Weight files: torch's legacy serialization read without torch.

A legacy file is five pickles and raw data, one after another: a magic number, the format's version,
the writer's byte order, the state dict (its storages named by persistent ids), the list of the
storages' keys, and then for each key its number of elements as int64 and its elements. This is
`torch.save(..., _use_new_zipfile_serialization=False)`, and what torch wrote before version 1.6:
the FID weights `pt_inception-2015-12-05-6726825d.pth` and EfficientNet-Lite0's among them.
"""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thermo_ebm.metrics.networks import pickle_reader

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MAX_BYTES = 2**30  # the largest file anybody needs here has 95 MB
_MAX_RANK = 16
_MAX_REASON = 200  # characters of a message; Python's own can repeat a whole file


class Storage(NamedTuple):
    """A storage as the pickle names it; its elements follow later in the file."""

    key: str
    dtype: np.dtype
    num_elements: int


class View(NamedTuple):
    """A tensor as the pickle describes it: a strided view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load_torch_legacy(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict from a file in torch's legacy serialization; builds arrays, runs nothing.

    Every claim in the file is checked against the bytes that are there before anything is
    allocated, so that memory stays within about twice the file's size.

    Args:
      path: the file.

    Returns:
      The arrays by their names; tensors that shared a storage share it here too.

    Raises:
      ValueError: if the file is anything else: another format, damaged, cut short, hostile.
      OSError: if there is no such file or it cannot be read.
    """
    try:
        return _read_state_dict(_read_bytes(Path(path)))
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        reason = str(error)[:_MAX_REASON] or type(error).__name__
        raise ValueError(
            f"{path} is not a state dict in torch's legacy format: {reason}"
        ) from error


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise ValueError("it is a folder")
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
    if data[:2] == b"PK":
        raise ValueError("it has torch's newer zip format")
    return data


def _read_state_dict(data: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(data)
    if _read_plain(stream) != _MAGIC:
        raise ValueError("it has another magic number")
    if _read_plain(stream) != _VERSION:
        raise ValueError(f"it has another version of the format than {_VERSION}")
    system = _read_plain(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it was not written in little-endian order")
    storages: dict[str, Storage] = {}
    views = pickle_reader.load(stream, _ALLOWED, lambda pid: _storage(pid, storages))
    if not isinstance(views, dict):
        raise ValueError("it does not hold a dictionary")
    contents = _read_storages(stream, data, storages)
    return {name: _array(view, contents) for name, view in views.items()}


def _read_plain(stream: io.BytesIO) -> object:
    return pickle_reader.load(stream, {}, _refuse_persistent)


def _refuse_persistent(pid: object) -> object:
    raise ValueError("a storage in a place where none is allowed")


def _storage(pid: object, storages: dict[str, Storage]) -> Storage:
    """Checks a persistent id, ("storage", type, key, location, number of elements, None)."""
    if not isinstance(pid, tuple) or len(pid) != 6 or pid[0] != "storage":
        raise ValueError("a persistent id that is not that of a storage")
    _, dtype, key, _, num_elements, view = pid
    if not isinstance(dtype, np.dtype) or not isinstance(key, str) or view is not None:
        raise ValueError("a storage with an unknown type, key or view")
    if not _is_count(num_elements):
        raise ValueError("a storage whose number of elements is not a count")
    storage = Storage(key, dtype, num_elements)
    if storages.setdefault(key, storage) != storage:
        raise ValueError("a storage described in two ways")
    return storage


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *gradient_and_hooks: object
) -> View:
    """Stands for `torch._utils._rebuild_tensor_v2`: checks a view of a storage, builds nothing."""
    if not isinstance(storage, Storage) or not _is_count(offset):
        raise ValueError("a tensor without a storage or an offset")
    if not _are_counts(shape) or not _are_counts(strides):
        raise ValueError(f"a tensor whose shape or strides are not {_MAX_RANK} numbers at most")
    view = _without_idle_strides(View(storage, offset, shape, strides))  # type: ignore[arg-type]
    if not _is_within_storage(view):
        raise ValueError("a tensor beyond the end of its storage")
    return view


def _are_counts(value: object) -> bool:
    # The length first: one tuple of a million can be a shape a hundred thousand times.
    return isinstance(value, tuple) and len(value) <= _MAX_RANK and all(map(_is_count, value))


def _without_idle_strides(view: View) -> View:
    """Sets the strides that lead nowhere to 0: torch takes any there, NumPy's have 64 bits."""
    if len(view.shape) != len(view.strides):
        raise ValueError(f"a tensor of rank {len(view.shape)} with {len(view.strides)} strides")
    size = math.prod(view.shape)
    pairs = zip(view.shape, view.strides, strict=True)
    return view._replace(strides=tuple(s if n > 1 and size else 0 for n, s in pairs))


def _is_within_storage(view: View) -> bool:
    if 0 in view.shape:  # the other sizes are free, but NumPy multiplies them
        return (
            view.offset <= view.storage.num_elements
            and math.prod(n for n in view.shape if n) <= _MAX_BYTES
        )
    # A stride of 0 could claim any size, so a view never has more elements than its storage.
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    return math.prod(view.shape) <= view.storage.num_elements and last < view.storage.num_elements


def _rebuild_parameter(view: object, *gradient_and_hooks: object) -> object:
    return view


def _new_dict(pairs: object = None) -> dict[str, Any]:
    """Stands for `collections.OrderedDict`; Python 2 wrote its items as an argument."""
    result: dict[str, Any] = {}
    if pairs is None:
        return result
    if not isinstance(pairs, list):
        raise ValueError("a dictionary that is not made from a list")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError("a dictionary that is not made from pairs")
        result[pair[0]] = pair[1]
    pairs.clear()  # nobody else's, and a hostile file could have it copied without end
    return result


_ALLOWED: Mapping[str, Any] = {
    "collections OrderedDict": _new_dict,
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    "torch HalfStorage": np.dtype("<f2"),
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch ByteStorage": np.dtype("u1"),
    "torch CharStorage": np.dtype("i1"),
    "torch ShortStorage": np.dtype("<i2"),
    "torch IntStorage": np.dtype("<i4"),
    "torch LongStorage": np.dtype("<i8"),
}


def _read_storages(
    stream: io.BytesIO, data: bytes, storages: Mapping[str, Storage]
) -> dict[str, np.ndarray]:
    keys = _read_plain(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("the list of storages is not a list of names")
    if len(set(keys)) != len(keys) or set(keys) != set(storages):
        raise ValueError("the list of storages is not the storages in use")
    position = stream.tell()
    contents = {}
    for key in keys:
        contents[key], position = _read_storage(data, position, storages[key])
    if position != len(data):
        raise ValueError(f"{len(data) - position} bytes too many at its end")
    return contents


def _read_storage(data: bytes, position: int, storage: Storage) -> tuple[np.ndarray, int]:
    start = position + 8
    end = start + storage.num_elements * storage.dtype.itemsize
    if end > len(data):
        raise ValueError(f"cut short: {end - len(data)} bytes of a storage missing")
    if int.from_bytes(data[position:start], "little") != storage.num_elements:
        raise ValueError("a storage with two numbers of elements")
    # A copy of its own, since the elements need not be aligned in the file.
    array = np.frombuffer(data, storage.dtype, storage.num_elements, start).copy()
    return array, end


def _array(view: object, contents: Mapping[str, np.ndarray]) -> np.ndarray:
    if not isinstance(view, View):
        raise ValueError("an entry that is not a tensor")
    elements = contents[view.storage.key][view.offset :]
    strides = tuple(stride * elements.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(elements, view.shape, strides)
