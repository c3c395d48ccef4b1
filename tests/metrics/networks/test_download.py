"""The user's download of weights, and the cache of real features."""

import contextlib
import hashlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE

from thermo_ebm.errors import UserError
from thermo_ebm.metrics.networks import Network, Outputs, cache, download

ROOT = Path(__file__).resolve().parents[3]


def published(folder, content, digits=8):
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"weights-2015-12-05-{digest[:digits]}.pth"
    path.write_bytes(content)
    return path


def test_a_file_is_fetched_completely_checked_and_only_once(tmp_path):
    source = published(tmp_path, b"weights" * 1000)
    target = download.fetch(source.as_uri(), tmp_path / "cache" / "deeper")
    assert target.read_bytes() == source.read_bytes()
    assert target.name == source.name
    source.unlink()
    assert download.fetch(source.as_uri(), target.parent) == target
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_wrong_checksum_leaves_nothing(tmp_path):
    source = published(tmp_path, b"weights")
    source.write_bytes(b"tampered")
    with pytest.raises(UserError, match="SHA-256"):
        download.fetch(source.as_uri(), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_file_in_the_cache_is_replaced(tmp_path):
    source = published(tmp_path, b"weights")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / source.name).write_bytes(b"half")
    assert download.fetch(source.as_uri(), tmp_path / "cache").read_bytes() == b"weights"


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path):
    source = published(tmp_path, b"weights")
    with pytest.raises(UserError, match="cannot fetch"):
        download.fetch(source.as_uri(), source / "cache")


@contextlib.contextmanager
def answering(answer):
    """The address of a server that sends these bytes to whoever connects, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense " * 100 + b"\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n",
    ],
    ids=["status", "nothing", "incomplete", "chunk"],
)
def test_a_bad_answer_is_the_users_error_in_one_line(tmp_path, answer):
    with answering(answer) as server, pytest.raises(UserError, match="cannot fetch") as raised:
        download.fetch(f"{server}/weights-12345678.pth", tmp_path)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["weights-.pth", "weights-1234567.pth", "weights.pth", "x-weights0"]
)
def test_a_name_without_digits_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(UserError, match="at least 8 hexadecimal digits"):
        download.fetch((tmp_path / name).as_uri(), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_the_published_address_and_digits():
    assert download.sha256_prefix(download.INCEPTION_URL) == "6726825d"
    assert download.INCEPTION_URL.endswith("/" + download.INCEPTION_FILE)


def test_weights_are_found_where_they_are(tmp_path):
    (tmp_path / download.INCEPTION_FILE).write_bytes(b"x")
    expected = tmp_path / download.INCEPTION_FILE
    assert download.find_inception_weights(None, tmp_path) == expected
    assert download.find_inception_weights(expected, tmp_path / "elsewhere") == expected


def test_the_cache_folder_follows_the_desktops_rule(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.default_dir() == Path("/somewhere/thermo_ebm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.default_dir() == Path.home() / ".cache" / "thermo_ebm"


def fetch_weights(*flags):
    command = [sys.executable, "-m", "launch.fetch_weights", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)


def test_the_program(tmp_path):
    source = published(tmp_path, b"weights")
    done = fetch_weights(f"--url={source.as_uri()}", f"--cache_dir={tmp_path / 'cache'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(tmp_path / "cache" / source.name)


def test_the_program_offline_says_both_ways_in_one_line(tmp_path):
    url = f"--url=http://127.0.0.1:9/{download.INCEPTION_FILE}"
    failed = fetch_weights(url, f"--cache_dir={tmp_path}")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: cannot fetch")
    assert failed.stderr.count("\n") == 1
    assert "launch.fetch_weights" in failed.stderr
    assert "--inception_weights=PATH" in failed.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--url=garbage", "at least 8 hexadecimal digits"),
        ("--url=garbage-12345678.pth", "unknown url type"),
        ("--url=http://a b/x-12345678.pth", "control characters"),
        (f"--url=file:///{'x' * 300}-12345678.pth", "File name too long"),
        ("--bogus=1", "Unknown command line flag 'bogus'"),
        ("stray", "unknown argument 'stray'; flags start with --"),
    ],
)
def test_the_program_says_what_is_wrong_in_one_line(tmp_path, flag, message):
    failed = fetch_weights(flag, f"--cache_dir={tmp_path}")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1
    assert message in failed.stderr


def counting_network(calls, **changes):
    def apply(images, batch_size):
        calls.append(len(images))
        return Outputs(images.mean(axis=(1, 2)), images[:, 0, 0].astype(float))

    return Network("small", "bilinear", "f" * 64, 3, apply)._replace(**changes)


def test_real_features_are_computed_once_for_each_content(tmp_path):
    calls = []
    network = counting_network(calls)
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3)).astype(np.uint8)

    def outputs(network=network, images=images, data_set="digits", split="validation"):
        return cache.real_outputs(network, images, data_set, split, tmp_path)

    first = outputs()
    again = outputs()
    assert len(calls) == 1
    np.testing.assert_array_equal(again.features, first.features)
    np.testing.assert_array_equal(again.logits, first.logits)
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    outputs(images=changed)
    outputs(images=images[::-1])
    outputs(split="train")
    outputs(data_set="svhn")
    outputs(network=network._replace(fingerprint="e" * 64))
    outputs(network=network._replace(resize="antialias"))
    outputs(network=network._replace(name="other"))
    assert len(calls) == 8
    outputs()
    assert len(calls) == 8


def test_a_damaged_or_foreign_cache_file_is_computed_anew(tmp_path):
    calls = []
    network = counting_network(calls)
    images = np.zeros((4, 2, 2, 3), np.uint8)
    expected = cache.real_outputs(network, images, "digits", "validation", tmp_path)
    (path,) = (tmp_path / "features").iterdir()
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-30], b"x" * 500):
        path.write_bytes(content)
        again = cache.real_outputs(network, images, "digits", "validation", tmp_path)
        np.testing.assert_array_equal(again.features, expected.features)
    with path.open("wb") as file:
        np.savez(file, key="another", features=np.ones((4, 3)), logits=np.ones((4, 3)))
    again = cache.real_outputs(network, images, "digits", "validation", tmp_path)
    np.testing.assert_array_equal(again.features, expected.features)
    assert len(calls) == 6


@pytest.mark.parametrize(("at", "value"), [(6, 1), (8, 8), (8, 14), (8, 99)])
def test_a_cache_file_whose_zip_is_odd_is_computed_anew(tmp_path, at, value):
    """Encrypted, or compressed in another way, as its directory claims."""
    calls = []
    network, images = counting_network(calls), np.zeros((4, 2, 2, 3), np.uint8)
    expected = cache.real_outputs(network, images, "digits", "validation", tmp_path)
    (path,) = (tmp_path / "features").iterdir()
    damaged = bytearray(path.read_bytes())
    # The first entry's own header, and the same fields two bytes on in the directory.
    damaged[at] = damaged[damaged.index(b"PK\x01\x02") + 2 + at] = value
    path.write_bytes(damaged)
    again = cache.real_outputs(network, images, "digits", "validation", tmp_path)
    np.testing.assert_array_equal(again.features, expected.features)
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path):
    (tmp_path / "features").write_bytes(b"in the way")
    network = counting_network([])
    images = np.zeros((4, 2, 2, 3), np.uint8)
    outputs = cache.real_outputs(network, images, "digits", "validation", tmp_path)
    assert outputs.features.shape == (4, 3)
