"""The user's download of weights."""

import contextlib
import hashlib
import socket
import threading

import pytest

from thermo_ebm.errors import UserError
from thermo_ebm.metrics.networks import download, inception_v3


def published(folder, content, digits=8):
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"weights-2015-12-05-{digest[:digits]}.pth"
    path.write_bytes(content)
    return path


def test_a_file_is_fetched_once_and_checked(tmp_path):
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


def test_a_folder_that_cannot_be_created_is_a_user_error(tmp_path):
    source = published(tmp_path, b"weights")
    with pytest.raises(UserError, match="cache: cannot be written: Not a directory"):
        download.fetch(source.as_uri(), source / "cache")


@contextlib.contextmanager
def answering(answer):
    """The address of a server that sends these bytes to the first connection and closes it."""
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


def test_malformed_answers_are_user_errors_in_one_line(tmp_path):
    for answer in (
        b"nonsense " * 100 + b"\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n",
    ):
        with answering(answer) as server, pytest.raises(UserError, match="cannot fetch") as raised:
            download.fetch(f"{server}/weights-12345678.pth", tmp_path)
        assert "\n" not in str(raised.value), answer
        assert list(tmp_path.iterdir()) == [], answer


def test_malformed_addresses_are_user_errors_in_one_line(tmp_path):
    for url, message in (
        ("file:///weights-.pth", "at least 8 hexadecimal digits"),
        ("file:///weights-1234567.pth", "at least 8 hexadecimal digits"),
        ("file:///weights.pth", "at least 8 hexadecimal digits"),
        ("garbage", "at least 8 hexadecimal digits"),
        ("garbage-12345678.pth", "unknown url type"),
        ("http://a b/x-12345678.pth", "control characters"),
        (f"file:///{'x' * 300}-12345678.pth", "File name too long"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            download.fetch(url, tmp_path / "cache")
        assert "\n" not in str(raised.value), url
        assert not [*tmp_path.glob("cache/*")], url


def test_the_published_address_has_a_checksum():
    assert download.sha256_prefix(inception_v3.WEIGHTS_URL) == "6726825d"


def test_downloaded_weights_are_found_and_verified(tmp_path):
    path = published(tmp_path, b"weights")
    assert download.find_weights(path.as_uri(), None, tmp_path) == path
    path.write_bytes(b"tampered")
    with pytest.raises(UserError, match=r"is damaged: run .*fetch_weights` again"):
        download.find_weights(path.as_uri(), None, tmp_path)
    with pytest.raises(UserError, match=r"are not in .*fetch_weights.*--weights=PATH"):
        download.find_weights(path.as_uri(), None, tmp_path / "elsewhere")


def test_weights_of_the_user_are_used_whatever_they_hold(tmp_path):
    path = published(tmp_path, b"weights")
    url = path.as_uri()
    path.write_bytes(b"other weights")
    assert download.find_weights(url, path, tmp_path / "elsewhere") == path
