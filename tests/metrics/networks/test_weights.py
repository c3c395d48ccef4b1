"""The reader of torch's legacy files: right files give their arrays, all others a ValueError."""

import os
import pickle
import struct
import time

import numpy as np
import pytest

from thermo_ebm.metrics.networks import efficientnet
from thermo_ebm.metrics.weights import load_torch_legacy

from . import legacy_files as lf

FLOATS = np.arange(12, dtype=np.float32)


def write(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return path


def float_file(offset=0, shape=(3, 4), strides=(4, 1), num_elements=12, kind="FloatStorage"):
    source = lf.storage("a", kind, num_elements)
    state = lf.dictionary({"w": lf.tensor(source, offset, shape, strides)})
    return lf.legacy_file(state, {"a": FLOATS})


@pytest.mark.parametrize("dtype", sorted(lf.STORAGE_TYPES))
def test_arrays_of_every_type_and_rank_come_back(tmp_path, dtype):
    rng = np.random.default_rng(1)
    arrays = {
        "scalar": np.asarray(7, dtype),
        "layer.weight": rng.integers(0, 100, (2, 3, 4, 5)).astype(dtype),
        "empty": np.zeros((0, 3), dtype),
    }
    loaded = load_torch_legacy(write(tmp_path, lf.state_dict_file(arrays)))
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_strided_views_share_their_storage(tmp_path):
    source = lf.storage("a", "FloatStorage", 12)
    state = lf.dictionary(
        {"t": lf.tensor(source, 0, (4, 3), (1, 4)), "row": lf.tensor(source, 8, (4,), (1,))}
    )
    loaded = load_torch_legacy(write(tmp_path, lf.legacy_file(state, {"a": FLOATS})))
    np.testing.assert_array_equal(loaded["t"], FLOATS.reshape(3, 4).T)
    np.testing.assert_array_equal(loaded["row"], FLOATS[8:])
    assert np.shares_memory(loaded["t"], loaded["row"])


def test_the_packaged_weights_load():
    loaded = load_torch_legacy(efficientnet.weights_path())
    assert loaded["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert loaded["_bn0.num_batches_tracked"].shape == ()
    assert all(np.isfinite(array).all() for array in loaded.values())


def test_every_truncation_is_a_value_error(tmp_path):
    content = float_file()
    assert load_torch_legacy(write(tmp_path, content))["w"].shape == (3, 4)
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r"weights\.pth"):
            load_torch_legacy(write(tmp_path, content[:length]))


# numpy reads a damaged name of a type as Python's source, and warns of what it finds there.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
def test_damaged_bytes_never_give_another_exception(tmp_path):
    rng = np.random.default_rng(2)
    content = lf.state_dict_file({"w": FLOATS.reshape(3, 4), "b": FLOATS[:2]})
    refused = 0
    for _ in range(500):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 2):
            damaged[position] = rng.integers(0, 256)
        try:
            load_torch_legacy(write(tmp_path, bytes(damaged)))
        except ValueError:
            refused += 1
    assert refused > 250  # the rest hit the data or a name


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle at all\n",
        b"PK\x03\x04" + bytes(100),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        pickle.dumps({"w": 1}),
        pickle.dumps({"w": 1}, protocol=2),
        lf.MAGIC + lf.VERSION,
        lf.MAGIC + b"\x80\x02M\xe8\x03.",
        lf.legacy_file(lf.dictionary({}), {}, little_endian=b"\x89"),
        lf.legacy_file(lf.integer(3), {}),
        lf.legacy_file(lf.dictionary({"epoch": lf.integer(3)}), {}),
        lf.legacy_file(b"}" + lf.integer(3) + lf.integer(4) + b"s", {}),
        float_file() + b"x",
    ],
    ids=lambda content: str(content[:12]),
)
def test_other_files_are_value_errors(tmp_path, content):
    with pytest.raises(ValueError, match="legacy format"):
        load_torch_legacy(write(tmp_path, content))


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="folder"):
        load_torch_legacy(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_torch_legacy(tmp_path / "none.pth")


class Hostile:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["magic", "system", "state", "keys"])
def test_hostile_pickles_run_nothing(tmp_path, protocol, place):
    marker = tmp_path / "executed"
    bomb = pickle.dumps(Hostile(os.system, f"touch {marker}"), protocol)
    before = {
        "magic": b"",
        "system": lf.MAGIC + lf.VERSION,
        "state": lf.MAGIC + lf.VERSION + lf.pickled(lf.dictionary({"little_endian": b"\x88"})),
    }
    before["keys"] = before["state"] + lf.pickled(lf.dictionary({}))
    with pytest.raises(ValueError, match=r"weights\.pth"):
        load_torch_legacy(write(tmp_path, before[place] + bomb))
    assert not marker.exists()


@pytest.mark.parametrize(
    "state",
    [
        lf.call(lf.name_of("builtins", "eval"), lf.text("1")),
        lf.call(lf.name_of("numpy", "fromfile"), lf.text("x")),
        lf.call(lf.name_of("torch", "load"), lf.text("x")),
        lf.call(lf.name_of("collections", "OrderedDict.__init__.__globals__")),
        lf.call(lf.name_of("torch", "FloatStorage")),
        b"ios\nsystem\n",
        b"(cos\nsystem\n" + lf.text("x") + b"o",
        b"\x82\x01",
        lf.text("os") + lf.text("system") + b"\x93",
        lf.dictionary({}) + lf.text("x") + b"b" + lf.call(lf.name_of("os", "getcwd")),
        lf.integer(1) + lf.dictionary({}) + b"b",
        lf.text("module") + b"Q",
        b"(" * 1000 + b"t" * 1001,
        b"R",
        b"\x87",
        b"h\x05",
    ],
    ids=str,
)
def test_what_no_weight_file_needs_is_refused(tmp_path, state):
    with pytest.raises(ValueError, match=r"weights\.pth"):
        load_torch_legacy(write(tmp_path, lf.legacy_file(state, {})))


@pytest.mark.parametrize(
    "content",
    [
        float_file(offset=1),
        float_file(offset=-1),
        float_file(strides=(5, 1)),
        float_file(strides=(-4, 1)),
        float_file(strides=(1,)),
        float_file(shape=(10**6, 10**6), strides=(0, 0)),
        float_file(shape=(13,), strides=(0,)),
        float_file(shape=(2**40,), strides=(2**40,)),
        float_file(shape=(1,) * 40, strides=(1,) * 40),
        float_file(num_elements=2**62),
        float_file(num_elements=2**80),
        float_file(num_elements=11),
        float_file(num_elements=-12),
        float_file(kind="DoubleStorage"),
        float_file(kind="BFloat16Storage"),
        lf.legacy_file(
            lf.dictionary({"w": lf.tensor(lf.storage("a", "FloatStorage", 12), 0, (12,), (1,))}),
            {"a": FLOATS},
            keys=["a", "a"],
        ),
        lf.legacy_file(lf.dictionary({}), {"unused": FLOATS}),
        lf.legacy_file(
            lf.dictionary(
                {
                    "v": lf.tensor(lf.storage("a", "FloatStorage", 12), 0, (12,), (1,)),
                    "w": lf.tensor(lf.storage("a", "IntStorage", 12), 0, (12,), (1,)),
                }
            ),
            {"a": FLOATS},
        ),
        # Claims of lengths that are not there: a string, an integer, a memo's number.
        lf.MAGIC + lf.VERSION + b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a.",
        lf.MAGIC + lf.VERSION + b"\x80\x02\x8d" + struct.pack("<Q", 2**62) + b"a.",
        lf.MAGIC + lf.VERSION + b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"a.",
    ],
    ids=range(21),
)
def test_false_claims_are_refused_before_memory_is_taken(tmp_path, content):
    with pytest.raises(ValueError, match=r"weights\.pth"):
        load_torch_legacy(write(tmp_path, content))


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((1,), (10**30,)), ((1, 12), (2**62, 1)), ((0, 12), (10**30, 2**62))],
    ids=str,
)
def test_strides_that_lead_nowhere_are_free(tmp_path, shape, strides):
    loaded = load_torch_legacy(write(tmp_path, float_file(shape=shape, strides=strides)))
    np.testing.assert_array_equal(loaded["w"], FLOATS[: np.prod(shape)].reshape(shape))


@pytest.mark.parametrize(
    "content",
    [
        float_file(shape=(0, 10**30), strides=(1, 1)),
        float_file(shape=(0, 2**62), strides=(1, 1)),
        float_file(shape=(0,), strides=(1,), offset=10**30),
        float_file(shape=lf.sequence([b"\x88"])),
        float_file(shape=lf.nested(lf.integer(1), 200_000)),
        float_file(shape=lf.doubled(lf.integer(1), 24)),
        float_file(num_elements=lf.nested(lf.integer(1), 200_000)),
        lf.legacy_file(lf.nested(lf.integer(1), 200_000), {}),
        lf.legacy_file(lf.name_of("torch", "a" * 10**6), {}),
        lf.legacy_file(b"S" + b"a" * 10**6 + b"\n", {}),
        lf.legacy_file(b"]" * 4_000_000, {}),
        # One long list or tuple, read or copied again and again.
        lf.legacy_file(
            lf.name_of("collections", "OrderedDict")
            + b"q\x00]("
            + b"".join(lf.text(str(n)) + b"N\x86" for n in range(10**5))
            + b"e\x85q\x01"
            + b"h\x00h\x01R" * 10**5
            + lf.integer(3),
            {},
        ),
        lf.legacy_file(
            lf.name_of("torch._utils", "_rebuild_parameter")
            + b"q\x00("
            + b"N" * 10**5
            + b"tq\x01"
            + b"h\x00h\x01R" * 10**5,
            {},
        ),
        float_file(shape=lf.sequence([lf.integer(1)] * 10**6)),
    ],
    ids=range(14),
)
def test_what_is_deep_or_long_is_refused_in_few_words_and_seconds(tmp_path, content):
    path, started = write(tmp_path, content), time.process_time()
    with pytest.raises(ValueError, match="legacy format") as raised:
        load_torch_legacy(path)
    assert len(str(raised.value)) < len(str(path)) + 300
    assert time.process_time() - started < 30


def test_a_memo_of_any_number_costs_nothing(tmp_path):
    state = lf.dictionary({}) + b"r" + struct.pack("<I", 2**32 - 1)
    assert load_torch_legacy(write(tmp_path, lf.legacy_file(state, {}))) == {}


def test_what_torch_writes_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = module.state_dict() | {"transposed": torch.arange(12.0).reshape(3, 4).T}
    path = tmp_path / "torch.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    loaded = load_torch_legacy(path)
    assert list(loaded) == list(state)
    for name, value in state.items():
        np.testing.assert_array_equal(loaded[name], value.numpy())
    torch.save(dict(module.named_parameters()), path, _use_new_zipfile_serialization=False)
    assert set(load_torch_legacy(path)) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    torch.save(state, path)
    with pytest.raises(ValueError, match="zip"):
        load_torch_legacy(path)
