"""Writes files in torch's two formats by hand, without torch: valid and hostile ones."""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
VERSION = b"\x80\x02M\xe9\x03."
STORAGE_TYPES = {
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "uint8": "ByteStorage",
    "int8": "CharStorage",
    "int16": "ShortStorage",
    "int32": "IntStorage",
    "int64": "LongStorage",
}


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def nested(value: bytes, depth: int) -> bytes:
    """A tuple in a tuple and so on."""
    return value + b"\x85" * depth


def doubled(value: bytes, times: int) -> bytes:
    """A tuple of twice a tuple and so on: 2**times values when written out."""
    return value + b"q\x00h\x00\x86" * times


def sequence(items: Sequence[bytes]) -> bytes:
    return b"(" + b"".join(items) + b"t"


def name_of(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + sequence(arguments) + b"R"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def storage(key: str, kind: str, num_elements: int | bytes, view: bytes = b"N") -> bytes:
    """A storage's opcodes; `num_elements` as bytes stands for opcodes; zip files have no view."""
    number = num_elements if isinstance(num_elements, bytes) else integer(num_elements)
    parts = [text("storage"), name_of("torch", kind), text(key), text("cpu")]
    return sequence([*parts, number, view]) + b"Q"


def tensor(
    source: bytes, offset: int, shape: Sequence[int] | bytes, strides: Sequence[int]
) -> bytes:
    """A view's opcodes; a shape as bytes stands for opcodes."""
    hooks = call(name_of("collections", "OrderedDict"))
    return call(
        name_of("torch._utils", "_rebuild_tensor_v2"),
        source,
        integer(offset),
        shape if isinstance(shape, bytes) else sequence([integer(n) for n in shape]),
        sequence([integer(n) for n in strides]),
        b"\x89",
        hooks,
    )


def legacy_file(
    state: bytes,
    contents: Mapping[str, np.ndarray],
    keys: Sequence[str] | None = None,
    little_endian: bytes = b"\x88",
) -> bytes:
    """A legacy file: `state` is the state dict's opcodes, `contents` the storages by their keys."""
    system = dictionary({"little_endian": little_endian, "protocol_version": integer(1001)})
    names = list(contents) if keys is None else keys
    key_list = b"](" + b"".join(text(key) for key in names) + b"e"
    data = b"".join(
        struct.pack("<q", array.size) + np.ascontiguousarray(array).tobytes()
        for array in contents.values()
    )
    return MAGIC + VERSION + pickled(system) + pickled(state) + pickled(key_list) + data


def zip_file(
    state: bytes,
    contents: Mapping[str, np.ndarray],
    compression: int = zipfile.ZIP_STORED,
    byte_order: str = "little",
) -> bytes:
    """A file in torch's zip format; the arguments as for `legacy_file`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.writestr("weights/data.pkl", pickled(state))
        archive.writestr("weights/byteorder", byte_order)
        for key, array in contents.items():
            archive.writestr(f"weights/data/{key}", np.ascontiguousarray(array).tobytes())
        archive.writestr("weights/version", "3\n")
    return content.getvalue()


def state_dict_file(arrays: Mapping[str, np.ndarray], write=legacy_file) -> bytes:
    """A file of arrays, each with its own storage, with the module versions that torch adds.

    Args:
      arrays: by their names.
      write: `legacy_file` or `zip_file`.
    """
    items, contents = {}, {}
    for number, (name, array) in enumerate(arrays.items()):
        strides = [stride // array.itemsize for stride in array.strides]
        view = b"N" if write is legacy_file else b""
        source = storage(str(number), STORAGE_TYPES[array.dtype.name], array.size, view)
        items[name] = tensor(source, 0, array.shape, strides)
        contents[str(number)] = array
    ordered = call(name_of("collections", "OrderedDict")) + dictionary(items)[1:]
    state = ordered + dictionary({"_metadata": dictionary({"": integer(1)})}) + b"b"
    return write(state, contents)
