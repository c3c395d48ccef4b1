"""State dicts in files of torch and safetensors: a file can build arrays and nothing else.

torch has two formats. A zip file (since version 1.6) holds the pickled state dict in `data.pkl` and
each storage's elements in `data/KEY`. A legacy file is five pickles and raw data: a magic number,
the format's version, the writer's byte order, the state dict, the list of the storages' keys, and
then for each key its number of elements as int64 and its elements; the FID weights
`pt_inception-2015-12-05-6726825d.pth` and EfficientNet-Lite0's are such files. In both formats the
state dict names its storages by persistent ids.

A file of safetensors is the length of its header, the header in JSON (name, type, shape and place
of each array), and the arrays.

Unpickling resolves only the names in `_StateDictUnpickler.find_class`. Before it starts, the
opcodes are checked (`_check_opcodes`), because Python's unpickler allocates whatever a pickle
claims, and hashing a deeply nested tuple exhausts the stack.
"""

import io
import json
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thermo_ebm.errors import one_line

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_MAX_BYTES = 1 << 32  # of a file
_MAX_OPCODES = 200_000  # of a pickle; a network's has about 50 for each tensor
_MAX_TUPLE_DEPTH = 4  # a tensor's arguments hold the tuple that names its storage
_MAX_RANK = 16
_MAX_REASON = 200  # characters of a message; Python's messages can quote a complete file
_OPCODES = frozenset(
    {
        *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("EMPTY_DICT", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    }
)
_DTYPES: Mapping[str, str] = {  # as strings: a pickle could change a dtype's state
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "ByteStorage": "|u1",
    "CharStorage": "|i1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
}


_SAFETENSORS_DTYPES: Mapping[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # the upper half of a float32
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
_MAX_HEADER = 1 << 25


class Storage(NamedTuple):
    """A storage as the pickle names it; its elements are elsewhere in the file."""

    dtype: str
    key: str
    num_elements: int

    @property
    def num_bytes(self) -> int:
        """The size of the elements."""
        return self.num_elements * np.dtype(self.dtype).itemsize


class View(NamedTuple):
    """A tensor as the pickle describes it: a strided view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict from a file of torch or of safetensors.

    Every claim in the file is checked against its size before anything is allocated, so that
    memory stays within about twice the file's size.

    Args:
      path: the file, in torch's zip format, its legacy format, or that of safetensors.

    Returns:
      The arrays by their names; tensors that share a storage share memory.

    Raises:
      ValueError: if the file is anything else: another format, damaged, truncated, hostile.
      OSError: if there is no such file or it cannot be read.
    """
    try:
        return _read(Path(path))
    except OSError:
        raise
    except Exception as error:  # a damaged pickle or zip raises many kinds
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        reason = f"{kind}{one_line(error)[:_MAX_REASON]}"
        raise ValueError(f"{path} is not {_format_of(Path(path))}: {reason}") from error


def _format_of(path: Path) -> str:
    """What a file seems to be, for messages."""
    if not path.is_file():
        return "a state dict of torch"
    with path.open("rb") as file:
        return "a file of safetensors" if _has_header(file.read(9)) else "a state dict of torch"


def _has_header(data: bytes) -> bool:
    """Whether the beginning of a file is that of safetensors."""
    return data[8:9] == b"{" and data[:2] != b"PK"


def _read(path: Path) -> dict[str, np.ndarray]:
    num_bytes = path.stat().st_size
    if not path.is_file():
        raise ValueError("it is not a file")
    if num_bytes > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
    data = path.read_bytes()
    if _has_header(data):
        return _read_safetensors(data)
    views, elements = _read_zip(data) if data[:2] == b"PK" else _read_legacy(data)
    return {name: _array(view, elements[view.storage.key]) for name, view in views.items()}


def _read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    length = int.from_bytes(data[:8], "little")
    if length > min(_MAX_HEADER, len(data) - 8):
        raise ValueError(f"a header of {length} bytes in a file of {len(data)}")
    header, content = json.loads(data[8 : 8 + length]), memoryview(data)[8 + length :]
    if not isinstance(header, dict):
        raise ValueError("its header is no dictionary")
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape = _SAFETENSORS_DTYPES.get(entry["dtype"]), entry["shape"]
        if dtype is None or not all(map(_is_count, shape)) or len(shape) > _MAX_RANK:
            raise ValueError(f"{name} has the type {entry['dtype']} and the shape {shape}")
        first, last = entry["data_offsets"]
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if not (_is_count(first) and last == first + num_bytes and last <= len(content)):
            raise ValueError(f"{name} lies outside the file, or has another size than its shape")
        array = np.frombuffer(content[first:last], dtype).reshape(shape)
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array
    return arrays


def _read_zip(data: bytes) -> tuple[dict[str, View], dict[str, np.ndarray]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        root = next((name for name in names if name.endswith("/data.pkl")), "").partition("/")[0]
        if not root:
            raise ValueError("it is a zip file without data.pkl")
        if f"{root}/constants.pkl" in names:
            raise ValueError(
                "it is a TorchScript archive: load it with torch.jit.load and save its state_dict()"
                " with torch.save"
            )
        if f"{root}/byteorder" in names and _read_entry(archive, f"{root}/byteorder") != b"little":
            raise ValueError("it was not written in little-endian order")
        stream = io.BytesIO(_read_entry(archive, f"{root}/data.pkl"))
        views, storages = _read_views(stream, len(data))
        return views, {
            key: _elements(storage, _read_entry(archive, f"{root}/data/{key}"))
            for key, storage in storages.items()
        }


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    entry = archive.getinfo(name)
    # torch does not compress: a compressed entry could grow beyond the file's size.
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError("it has compressed entries")
    return archive.read(entry)


def _read_legacy(data: bytes) -> tuple[dict[str, View], dict[str, np.ndarray]]:
    stream = io.BytesIO(data)
    if _unpickle(stream) != _MAGIC:
        raise ValueError("it has another magic number")
    if _unpickle(stream) != _VERSION:
        raise ValueError(f"it has another version of the format than {_VERSION}")
    system = _unpickle(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it was not written in little-endian order")
    views, storages = _read_views(stream, len(data))
    keys = _unpickle(stream)
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        raise ValueError("the list of storages does not match the storages in use")
    elements = {}
    for key in keys:
        if int.from_bytes(stream.read(8), "little") != storages[key].num_elements:
            raise ValueError("a storage with two numbers of elements")
        elements[key] = _elements(storages[key], stream.read(storages[key].num_bytes))
    if stream.read(1):
        raise ValueError("it has more bytes than it says")
    return views, elements


def _elements(storage: Storage, content: bytes) -> np.ndarray:
    if len(content) != storage.num_bytes:
        raise ValueError(f"a storage of {len(content)} bytes in place of {storage.num_bytes}")
    return np.frombuffer(bytearray(content), storage.dtype)


def _read_views(stream: io.BytesIO, file_size: int) -> tuple[dict[str, View], dict[str, Storage]]:
    """Reads the pickled state dict: its tensors and the storages that it names."""
    storages: dict[str, Storage] = {}
    views = _unpickle(stream, storages)
    if not isinstance(views, dict) or not all(isinstance(view, View) for view in views.values()):
        raise ValueError("it does not hold a dictionary of tensors")
    if not all(isinstance(name, str) for name in views):
        raise ValueError("a tensor whose name is not a string")
    if sum(storage.num_bytes for storage in storages.values()) > file_size:
        raise ValueError("its tensors are larger than the file")
    return views, storages


def _unpickle(stream: io.BytesIO, storages: dict[str, Storage] | None = None) -> Any:
    """Reads one pickle, in which persistent ids are allowed if `storages` is to collect them."""
    start = stream.tell()
    _check_opcodes(stream)
    end = stream.tell()
    stream.seek(start)
    pickled = io.BytesIO(stream.read(end - start))
    return _StateDictUnpickler(pickled, storages).load()


def _check_opcodes(stream: io.BytesIO) -> None:
    """Refuses a pickle that claims more than it holds, without building anything.

    The depth of tuples is followed on a stack, as the unpickler will build them.

    Raises:
      ValueError: for an opcode that weight files do not need, or too large a number of opcodes,
        number in the memo or depth of tuples; as `pickletools.genops`, for a broken pickle.
    """
    stack: list[int | None] = []  # the depth of tuples in each value; None is a mark
    memo: dict[int, int | None] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name not in _OPCODES:
            raise ValueError(f"pickle opcode {opcode.name} has no place in a weight file")
        if number >= _MAX_OPCODES:
            raise ValueError(f"a pickle of more than {_MAX_OPCODES} opcodes")
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            if int(argument or 0) >= _MAX_OPCODES:
                raise ValueError(f"a pickle that memoizes more than {_MAX_OPCODES} values")
            memo[int(argument or 0)] = stack[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument or 0)])
        else:
            _follow_depth(stack, opcode)
            if stack and (stack[-1] or 0) > _MAX_TUPLE_DEPTH:
                raise ValueError(f"tuples nested deeper than {_MAX_TUPLE_DEPTH}")


def _follow_depth(stack: list[int | None], opcode: pickletools.OpcodeInfo) -> None:
    """Applies an opcode to the stack of `_check_opcodes`."""
    depths: list[int] = []  # of the values that the opcode takes
    before = list(opcode.stack_before)
    if pickletools.markobject in before:
        before = before[: before.index(pickletools.markobject)]
        while (depth := stack.pop()) is not None:
            depths.append(depth)
    depths += [stack.pop() or 0 for _ in before]
    for kind in opcode.stack_after:
        if kind is pickletools.markobject:
            stack.append(None)
        elif kind in (pickletools.pydict, pickletools.pylist):
            stack.append(0)  # cannot be hashed
        else:
            stack.append(max(depths, default=0) + (kind is pickletools.pytuple))


class _StateDictUnpickler(pickle.Unpickler):
    """Builds plain values and the descriptions of tensors."""

    def __init__(self, file: io.BytesIO, storages: dict[str, Storage] | None) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """Returns what stands for one of the few names that state dicts use."""
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        match module, name:
            case "collections", "OrderedDict":
                return self._new_dictionary
            case "torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2":
                return self._rebuild_tensor
            case "torch._utils", "_rebuild_parameter":
                return self._rebuild_parameter
        refused = ascii(f"{module} {name}"[:80])
        raise ValueError(f"refuses the global {refused}, which a weight file does not need")

    def persistent_load(self, pid: Any) -> Storage:
        """Checks ("storage", type, key, location, number of elements[, None])."""
        if self._storages is None:
            raise ValueError("a storage in a place where none is allowed")
        kind, dtype, key, _, num_elements, *view = pid
        if kind != "storage" or dtype not in _DTYPES.values() or view not in ([], [None]):
            raise ValueError("a persistent id that does not name a storage")
        if not isinstance(key, str) or not _is_count(num_elements):
            raise ValueError("a storage without a key or a number of elements")
        storage = Storage(dtype, key, num_elements)
        if self._storages.setdefault(key, storage) != storage:
            raise ValueError("a storage described in two ways")
        return storage

    def _new_dictionary(self, pairs: list[Any] | None = None) -> OrderedDict[str, Any]:
        """Stands for `collections.OrderedDict`; Python 2 wrote its items as a list of pairs."""
        if pairs is None:
            return OrderedDict()
        dictionary = OrderedDict(pairs)
        pairs.clear()  # so that a pickle cannot have the same list copied again and again
        return dictionary

    def _rebuild_tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *gradient_and_hooks: Any
    ) -> View:
        """Stands for `torch._utils._rebuild_tensor_v2`: checks a view of a storage."""
        if not isinstance(storage, Storage) or not _is_count(offset):
            raise ValueError("a tensor without a storage or an offset")
        for numbers in (shape, strides):
            if not isinstance(numbers, tuple) or len(numbers) > _MAX_RANK:
                raise ValueError(f"a shape or strides that are not {_MAX_RANK} numbers at most")
            if not all(map(_is_count, numbers)):
                raise ValueError("a shape or strides that are not numbers")
        # A stride of 0 could claim any size, so a view never has more elements than its storage.
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if math.prod(shape) > storage.num_elements or (
            0 not in shape and last >= storage.num_elements
        ):
            raise ValueError("a tensor beyond the end of its storage")
        return View(storage, offset, shape, strides)

    def _rebuild_parameter(self, view: Any, *gradient_and_hooks: Any) -> View:
        """Stands for `torch._utils._rebuild_parameter`: the tensor itself."""
        if not isinstance(view, View):
            raise ValueError("a parameter without a tensor")
        return view


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _array(view: View, elements: np.ndarray) -> np.ndarray:
    if 0 in view.shape:
        return np.empty(view.shape, elements.dtype)
    strides = tuple(stride * elements.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(elements[view.offset :], view.shape, strides)
