"""The reader of torch's files: valid files give their arrays, all others a ValueError in a line."""

import os
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from thermo_ebm.metrics.networks import efficientnet
from thermo_ebm.metrics.networks.weights import read_state_dict

from . import torch_files as tf

FLOATS = np.arange(12, dtype=np.float32)
FORMATS = pytest.mark.parametrize("write", [tf.legacy_file, tf.zip_file])
STATE_HEAD = tf.MAGIC + tf.VERSION + tf.pickled(tf.dictionary({"little_endian": b"\x88"}))


def read(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return read_state_dict(path)


def assert_refused(tmp_path, name, content, message=""):
    """The file gives one short ValueError, in a few MB and seconds."""
    started = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match=rf"weights\.pth is not a state dict of torch: .*{message}"
        ) as raised:
            read(tmp_path, content)
        _, peak = tracemalloc.get_traced_memory()
    except pytest.fail.Exception as failure:
        raise AssertionError(name) from failure
    finally:
        tracemalloc.stop()
    assert "\n" not in str(raised.value), name
    assert len(str(raised.value)) < len(str(tmp_path)) + 300, name
    assert peak < 100 * len(content) + 2**21, name
    assert time.process_time() - started < 60, name


def one_tensor(offset=0, shape=(3, 4), strides=(4, 1), num_elements=12, kind="FloatStorage"):
    """The opcodes of a state dict with a tensor."""
    source = tf.storage("a", kind, num_elements)
    return tf.dictionary({"w": tf.tensor(source, offset, shape, strides)})


def legacy(state):
    return tf.legacy_file(state, {"a": FLOATS})


@FORMATS
def test_arrays_of_every_type_and_rank_come_back(tmp_path, write):
    rng = np.random.default_rng(1)
    arrays = {}
    for dtype in tf.STORAGE_TYPES:
        arrays[f"{dtype}.scalar"] = np.asarray(7, dtype)
        arrays[f"{dtype}.weight"] = rng.integers(0, 100, (2, 3, 4, 5)).astype(dtype)
        arrays[f"{dtype}.empty"] = np.zeros((0, 3), dtype)
    loaded = read(tmp_path, tf.state_dict_file(arrays, write))
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


@FORMATS
def test_strided_views_share_their_storage(tmp_path, write):
    source = tf.storage("a", "FloatStorage", 12)
    state = tf.dictionary(
        {
            "transposed": tf.tensor(source, 0, (4, 3), (1, 4)),
            "row": tf.tensor(source, 8, (4,), (1,)),
        }
    )
    loaded = read(tmp_path, write(state, {"a": FLOATS}))
    np.testing.assert_array_equal(loaded["transposed"], FLOATS.reshape(3, 4).T)
    np.testing.assert_array_equal(loaded["row"], FLOATS[8:])
    assert np.shares_memory(loaded["transposed"], loaded["row"])


def test_items_as_python_2_wrote_them_are_read(tmp_path):
    """`OrderedDict` is called with a list of its items."""
    tensor = tf.tensor(tf.storage("a", "FloatStorage", 12), 0, (12,), (1,))
    state = tf.call(
        tf.name_of("collections", "OrderedDict"), b"](" + tf.text("w") + tensor + b"\x86e"
    )
    np.testing.assert_array_equal(read(tmp_path, legacy(state))["w"], FLOATS)


def test_the_packaged_weights_load():
    loaded = read_state_dict(efficientnet.find_weights())
    assert loaded["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert loaded["_bn0.num_batches_tracked"].shape == ()
    assert all(np.isfinite(array).all() for array in loaded.values())


def test_files_that_torch_writes_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = module.state_dict() | {"transposed": torch.arange(12.0).reshape(3, 4).T}
    path = tmp_path / "torch.pth"
    for zipped in (False, True):
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        loaded = read_state_dict(path)
        assert list(loaded) == list(state)
        for name, value in state.items():
            np.testing.assert_array_equal(loaded[name], value.numpy())
        parameters = dict(module.named_parameters())
        torch.save(parameters, path, _use_new_zipfile_serialization=zipped)
        assert set(read_state_dict(path)) == {"0.weight", "0.bias", "1.weight", "1.bias"}
        torch.save(module, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match="is not a state dict"):
            read_state_dict(path)


@FORMATS
def test_every_truncation_is_refused(tmp_path, write):
    content = write(one_tensor(), {"a": FLOATS})
    assert read(tmp_path, content)["w"].shape == (3, 4)
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r"weights\.pth"):
            read(tmp_path, content[:length])


# numpy parses a damaged name of a type as Python's source, and warns of what it finds there.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
@FORMATS
def test_damaged_bytes_never_give_another_exception(tmp_path, write):
    rng = np.random.default_rng(2)
    content = tf.state_dict_file({"w": FLOATS.reshape(3, 4), "b": FLOATS[:2]}, write)
    num_refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 2):
            damaged[position] = rng.integers(0, 256)
        try:
            read(tmp_path, bytes(damaged))
        except ValueError:
            num_refused += 1
    assert num_refused > 100  # the rest hit the data or a name


def test_files_of_other_kinds_are_refused(tmp_path):
    contents = {
        "empty": b"",
        "text": b"not a pickle at all\n",
        "broken zip": b"PK\x03\x04" + bytes(100),
        "image": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "plain pickle": pickle.dumps({"w": 1}, protocol=2),
        "magic number only": tf.MAGIC + tf.VERSION,
        "other version": tf.MAGIC + b"\x80\x02M\xe8\x03.",
        "legacy, big-endian": tf.legacy_file(tf.dictionary({}), {}, little_endian=b"\x89"),
        "zip, big-endian": tf.zip_file(one_tensor(), {"a": FLOATS}, byte_order="big"),
        "not a dictionary": legacy(tf.integer(3)),
        "not tensors": tf.legacy_file(tf.dictionary({"epoch": tf.integer(3)}), {}),
        "numbered tensors": legacy(b"}" + tf.integer(3) + one_tensor() + b"s"),
        "trailing bytes": legacy(one_tensor()) + b"x",
    }
    for name, content in contents.items():
        assert_refused(tmp_path, name, content)
    with pytest.raises(ValueError, match="not a file"):
        read_state_dict(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_state_dict(tmp_path / "none.pth")


class Hostile:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def test_hostile_pickles_run_nothing(tmp_path):
    """In every protocol, at every pickle of a file."""
    marker = tmp_path / "executed"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        bomb = pickle.dumps(Hostile(os.system, f"touch {marker}"), protocol)
        files = {
            "magic": bomb,
            "system": tf.MAGIC + tf.VERSION + bomb,
            "state": STATE_HEAD + bomb,
            "keys": STATE_HEAD + tf.pickled(tf.dictionary({})) + bomb,
            "zip": tf.zip_file(bomb.removeprefix(b"\x80\x02").removesuffix(b"."), {}),
        }
        for name, content in files.items():
            assert_refused(tmp_path, f"{name}, protocol {protocol}", content)
            assert not marker.exists()


@FORMATS
def test_names_and_opcodes_that_no_weight_file_needs_are_refused(tmp_path, write):
    dictionary = tf.call(tf.name_of("collections", "OrderedDict"))
    rebuild = tf.name_of("torch._utils", "_rebuild_tensor_v2")
    states = {
        "eval": tf.call(tf.name_of("builtins", "eval"), tf.text("1")),
        "numpy": tf.call(tf.name_of("numpy", "fromfile"), tf.text("x")),
        "torch.load": tf.call(tf.name_of("torch", "load"), tf.text("x")),
        "attribute of an allowed name": tf.call(
            tf.name_of("collections", "OrderedDict.__init__.__globals__")
        ),
        "call of a type": tf.call(tf.name_of("torch", "FloatStorage")),
        "INST": b"(ios\nsystem\n",
        "OBJ": b"(cos\nsystem\n" + tf.text("x") + b"o",
        "EXT1": b"\x82\x01",
        "STACK_GLOBAL": tf.text("os") + tf.text("system") + b"\x93",
        "BUILD of a function's state": rebuild
        + b"N"
        + tf.dictionary({"__defaults__": b"N"})
        + b"\x86b",
        "BUILD of a number": tf.integer(1) + tf.dictionary({}) + b"b",
        "persistent id of another kind": tf.text("module") + b"Q",
        "parameter that is not a tensor": dictionary
        + tf.text("w")
        + tf.call(tf.name_of("torch._utils", "_rebuild_parameter"), b"N")
        + b"s",
        "unbalanced marks": b"(" * 1000 + b"t" * 1001,
        "call without arguments": b"R",
        "tuple without items": b"\x87",
        "memo that is not filled": b"h\x05",
    }
    for name, state in states.items():
        assert_refused(tmp_path, name, write(state, {}))


@FORMATS
def test_tensors_beyond_their_storage_are_refused_before_memory_is_taken(tmp_path, write):
    states = {
        "offset": one_tensor(offset=1),
        "negative offset": one_tensor(offset=-1),
        "stride": one_tensor(strides=(5, 1)),
        "negative stride": one_tensor(strides=(-4, 1)),
        "fewer strides than sizes": one_tensor(strides=(1,)),
        "terabytes by strides of 0": one_tensor(shape=(10**6, 10**6), strides=(0, 0)),
        "repetition by a stride of 0": one_tensor(shape=(13,), strides=(0,)),
        "huge size and stride": one_tensor(shape=(2**40,), strides=(2**40,)),
        "huge size beside 0": one_tensor(shape=(0, 10**30), strides=(1, 1)),
        "rank 40": one_tensor(shape=(1,) * 40, strides=(1,) * 40),
        "storage of 2^62 elements": one_tensor(num_elements=2**62),
        "storage of 2^80 elements": one_tensor(num_elements=2**80),
        "storage smaller than the tensor": one_tensor(num_elements=11),
        "negative number of elements": one_tensor(num_elements=-12),
        "wider type": one_tensor(kind="DoubleStorage"),
        "unknown type": one_tensor(kind="BFloat16Storage"),
        "shape of truth values": one_tensor(shape=tf.sequence([b"\x88"]), strides=(1,)),
        "storage described in two ways": tf.dictionary(
            {
                "v": tf.tensor(tf.storage("a", "FloatStorage", 12), 0, (12,), (1,)),
                "w": tf.tensor(tf.storage("a", "IntStorage", 12), 0, (12,), (1,)),
            }
        ),
    }
    for name, state in states.items():
        assert_refused(tmp_path, name, write(state, {"a": FLOATS}))


def test_storages_that_do_not_match_the_pickle_are_refused(tmp_path):
    state, contents = one_tensor(), {"a": FLOATS}
    second_key = tf.dictionary(
        {
            "v": tf.tensor(tf.storage("a", "FloatStorage", 12), 0, (12,), (1,)),
            "w": tf.tensor(tf.storage("b", "FloatStorage", 12), 0, (12,), (1,)),
        }
    )
    assert_refused(tmp_path, "key listed twice", tf.legacy_file(state, contents, ["a", "a"]))
    assert_refused(tmp_path, "unused storage", tf.legacy_file(tf.dictionary({}), contents))
    assert_refused(tmp_path, "missing key", tf.legacy_file(second_key, contents))
    assert_refused(tmp_path, "missing entry", tf.zip_file(second_key, contents))
    assert_refused(tmp_path, "shorter entry", tf.zip_file(state, {"a": FLOATS[:11]}))
    assert_refused(
        tmp_path, "no data.pkl", tf.zip_file(state, {}).replace(b"data.pkl", b"pkl.data")
    )


def test_zip_bombs_are_refused_before_memory_is_taken(tmp_path):
    zeros = np.zeros(10**7, np.float32)
    large = one_tensor(shape=(10**7,), strides=(1,), num_elements=10**7)
    bomb = tf.zip_file(large, {"a": zeros}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**5
    assert_refused(tmp_path, "compressed storage", bomb, "compressed")
    # Storages that are small enough each, but together larger than the file.
    keys = [f"{number:04d}" for number in range(1000)]
    state = tf.dictionary(
        {key: tf.tensor(tf.storage(key, "FloatStorage", 10**4), 0, (10**4,), (1,)) for key in keys}
    )
    assert_refused(
        tmp_path, "many storages", tf.zip_file(state, {"0000": zeros[: 10**4]}), "larger than"
    )


def test_pickles_that_claim_memory_are_refused(tmp_path):
    claims = {
        "string of 4 GiB": b"X" + struct.pack("<I", 2**32 - 1) + b"a",
        "string of 2^62 bytes": b"\x8d" + struct.pack("<Q", 2**62) + b"a",
        "bytes of 2^62": b"\x8e" + struct.pack("<Q", 2**62) + b"a",
        "integer of 2 GiB": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"a",
        "memo of 4 billion values": tf.dictionary({}) + b"r" + struct.pack("<I", 2**32 - 1),
        "frame of 2^62 bytes": b"\x95" + struct.pack("<Q", 2**62),
    }
    for name, state in claims.items():
        assert_refused(tmp_path, name, STATE_HEAD + tf.pickled(state))
        assert_refused(tmp_path, f"{name}, zip", tf.zip_file(state, {}))


def test_deep_long_and_doubled_values_are_refused_in_seconds(tmp_path):
    deep = tf.nested(tf.integer(1), 50_000)
    doubled = tf.doubled(tf.integer(1), 100)
    ordered_dict = tf.name_of("collections", "OrderedDict")
    pairs = b"".join(tf.text(str(number)) + b"N\x86" for number in range(2000))
    states = {
        "deep shape": one_tensor(shape=deep),
        "doubled shape": one_tensor(shape=doubled),
        "deep number of elements": one_tensor(num_elements=deep),
        "deep key of a dictionary": b"}" + deep + b"Ns",
        "doubled key of a dictionary": b"}" + doubled + b"Ns",
        "deep lists": b"]" * 50_000,
        "more opcodes than any weight file": b"]" * 250_000,
        "long global": tf.name_of("torch", "a" * 10**6),
        "long shape": one_tensor(shape=tf.sequence([tf.integer(1)] * 10**4)),
        "list of items copied again and again": ordered_dict
        + b"q\x00]("
        + pairs
        + b"e\x85q\x01"
        + b"h\x00h\x01R" * 2000
        + tf.integer(3),
        "arguments copied again and again": tf.name_of("torch._utils", "_rebuild_parameter")
        + b"q\x00("
        + b"N" * 5000
        + b"tq\x01"
        + b"h\x00h\x01R" * 2000,
    }
    for name, state in states.items():
        assert_refused(tmp_path, name, legacy(state))
