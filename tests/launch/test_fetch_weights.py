"""The program that downloads weights: into the cache folder, offline, and with wrong flags."""

import hashlib


def test_weights_are_fetched_into_the_cache_folder(programs, tmp_path):
    digest = hashlib.sha256(b"weights").hexdigest()
    source = tmp_path / f"weights-{digest[:8]}.pth"
    source.write_bytes(b"weights")
    cache_dir = tmp_path / "cache"
    fetched = programs.run("fetch_weights", f"--url={source.as_uri()}", f"--cache_dir={cache_dir}")
    assert (fetched.code, fetched.err) == (0, "")
    assert fetched.out.strip() == str(cache_dir / source.name)
    assert (cache_dir / source.name).read_bytes() == b"weights"


def test_errors_are_reported_in_one_line(programs, tmp_path):
    offline = "--url=http://127.0.0.1:9/weights-12345678.pth"
    for flag, messages in (
        (offline, ("cannot fetch", "python -m launch.fetch_weights", "--weights=PATH")),
        ("--url=garbage", ("at least 8 hexadecimal digits",)),
        ("--bogus=1", ("--bogus: there is no such flag",)),
        ("stray", ("unknown argument 'stray'; flags start with --",)),
    ):
        failed = programs.run("fetch_weights", flag, f"--cache_dir={tmp_path / 'cache'}")
        assert (failed.code, failed.out) == (2, ""), flag
        assert failed.err.startswith("error: "), flag
        assert failed.err.count("\n") == 1, flag
        assert all(message in failed.err for message in messages), flag
        assert not [*tmp_path.glob("cache/*")], flag
