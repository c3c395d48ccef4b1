"""Programs whose output cannot be written, and errors before a program's own work."""

import contextlib
import os
import signal

import pytest

from launch import program


def on_full_disk(monkeypatch, main):
    with contextlib.suppress(OSError), open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(program.sys, "stdout", full)
        code = program.exit_code(main, ["program"])
        monkeypatch.undo()
    return code


def test_result_that_cannot_be_printed_is_an_error(monkeypatch, capfd):
    def main(argv):
        print("result")

    assert on_full_disk(monkeypatch, main) == program.BAD_INPUT
    assert capfd.readouterr().err == "error: standard output: No space left on device\n"


def test_results_in_files_do_not_need_standard_output(monkeypatch, capfd):
    def main(argv):
        program.continue_without_output()
        print("summary")
        return 3

    assert on_full_disk(monkeypatch, main) == 3
    assert capfd.readouterr().err == ""


def test_files_that_cannot_be_opened_are_named(tmp_path, capsys):
    def main(argv):
        (tmp_path / "no\nfolder" / "file").read_text()

    assert program.exit_code(main, ["program"]) == program.BAD_INPUT
    message = f"error: {tmp_path}/no\\nfolder/file: No such file or directory\n"
    assert capsys.readouterr().err == message


def test_errors_of_the_system_without_a_file_keep_their_traceback():
    def main(argv):
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        program.exit_code(main, ["program"])


def test_flag_files_that_cannot_be_read_are_named(programs, tmp_path):
    (tmp_path / "bytes").write_bytes(b"--seed=\xff\n")
    for path in (tmp_path / "none", tmp_path, tmp_path / "bytes"):
        for name in ("train", "compare"):
            argv = ["--config=configs/digits_paper.py"] if name == "train" else ["a", "b"]
            code, out, err = programs.run(name, *argv, f"--flagfile={path}", "--workdir=x")
            assert (code, out) == (2, ""), err
            assert err.startswith("error: --flagfile: "), err
            assert err.count("\n") == 1


def test_hangups_are_treated_as_terminations_unless_ignored(capfd):
    from thermo_ebm.train.loop import catch_interrupts

    before = signal.getsignal(signal.SIGHUP)
    try:
        for ignored in (False, True):
            signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
            with catch_interrupts() as interrupted:
                for _ in range(2):  # a closed terminal may send it twice
                    os.kill(os.getpid(), signal.SIGHUP)
                assert interrupted() is not ignored
            said = capfd.readouterr().err.count("stopping after this step")
            assert said == (0 if ignored else 1)  # at once, and not again
    finally:
        signal.signal(signal.SIGHUP, before)
