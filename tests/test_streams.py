"""Standard streams that are closed, full, broken or of another encoding; and unforeseen errors."""

import errno
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cntk_bench.cli import program, progress, streams
from cntk_bench.errors import UserError, VerificationError
from cntk_bench.system.interruption import Interrupted

REPOSITORY = Path(__file__).parents[1]
QUICKSTART = REPOSITORY / "configs" / "quickstart.yaml"
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")


def shell(line, **environment):
    """Run a line in bash, in which $cntk is the program; returns exit code and output."""
    environment = (
        os.environ | {"PYTHONPATH": str(REPOSITORY), "cntk": f"{sys.executable} -m cntk_bench"} | environment
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, env=environment)
    assert "Traceback" not in done.stderr and "None" not in done.stderr
    return done


@pytest.mark.parametrize(
    "closed", [c for n in (1, 2, 3) for c in itertools.combinations(("0<&-", "1>&-", "2>&-"), n)]
)
def test_closed_streams(closed):
    for arguments, code in (("info", 0), ("table nowhere", 2), ("", 2)):
        assert shell(f"$cntk {arguments} {' '.join(closed)}").returncode == code


def test_a_run_with_closed_streams_keeps_its_files_whole(tmp_path):
    asked = f"{QUICKSTART} --set dataset.train=20 --set dataset.test=10 --set kernel.depths=[3]"
    assert shell(f"$cntk run {asked} --output {tmp_path}/run --verbose 0<&- 1>&- 2>&-").returncode == 0
    assert "0 damaged" in shell(f"$cntk verify {tmp_path}/run").stdout


@needs_full
def test_a_full_standard_output_is_told():
    for arguments in ("info", "--help", "--version"):
        done = shell(f"$cntk {arguments} > /dev/full")
        assert done.returncode == 2
        assert done.stderr == (
            "error: cannot write to standard output (No space left on device): send it somewhere else\n"
        )


@needs_full
def test_a_table_that_cannot_be_printed_is_on_the_page(tmp_path):
    asked = f"{QUICKSTART} --set dataset.train=20 --set dataset.test=10 --set kernel.depths=[3]"
    done = shell(f"$cntk run {asked} --output {tmp_path}/run > /dev/full")
    assert done.returncode == 2 and "cannot write to standard output" in done.stderr
    assert "CNTK-V" in (tmp_path / "run" / "report" / "index.html").read_text()


@needs_full
def test_a_full_standard_error_loses_the_message_alone():
    assert shell("$cntk table nowhere 2> /dev/full").returncode == 2
    assert shell("$cntk info --verbose 2> /dev/full").returncode == 0
    assert shell("$cntk 2> /dev/full").returncode == 2


def test_a_reader_that_has_gone_is_no_failed_verification():
    for arguments in ("info", "--help"):
        done = shell(f"set -o pipefail; $cntk {arguments} | true")
        assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("name", ["größe", "数"])
def test_any_name_in_an_ascii_locale(tmp_path, name):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    (tmp_path / "c.yaml").write_text("dataset: {train: 20, test: 10}\nkernel: {depths: [3]}\n")
    done = shell(
        f"cd {tmp_path}; $cntk run c.yaml --set name={name} && $cntk solve runs/{name}", **ascii_only
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and (tmp_path / "runs" / name / "solves" / "2").is_dir()
    assert f"name: {name}\n" in (tmp_path / "runs" / name / "config.yaml").read_text("utf-8")


def test_a_folder_whose_name_is_not_text(tmp_path):
    import numpy as np

    folder = os.fsencode(tmp_path) + b"/m\xfcll"
    os.mkdir(folder)
    images = np.random.default_rng(0).random((12, 5, 5), np.float32)
    np.savez(os.fsdecode(folder + b"/d.npz"), x_train=images, y_train=np.arange(12) % 2, x_test=images,
             y_test=np.arange(12) % 2)  # fmt: skip
    (tmp_path / "c.yaml").write_text("dataset: {name: npz}\nkernel: {depths: [3]}\n")
    line = (
        f"cd {tmp_path}/m?ll && $cntk run ../c.yaml --set dataset.path=$PWD/d.npz --output r && cd / && "
        f"$cntk verify {tmp_path}/m?ll/r && $cntk table {tmp_path}/m?ll/r"
    )
    for environment in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        done = shell(line, **environment)
        assert done.returncode == 0, done.stderr
        subprocess.run(["rm", "-r", folder + b"/r"], check=True)


def test_what_a_terminal_obeys_is_printed_as_its_escape(capsys):
    streams.say("a\x1b]0;title\x07\nb\x9b31m\u202e")
    streams.complain("c\x1b[2J" + "d" * 1000)
    out, err = capsys.readouterr()
    assert out == "a\\x1b]0;title\\x07\nb\\x9b31m\\u202e\n"
    assert err.startswith("c\\x1b[2Jddd") and len(err) == 301


def test_what_is_logged_is_one_visible_line_and_nothing_stays_behind(capsys):
    import logging

    before, level = logging.getLogger().handlers[:], logging.getLogger("cntk_bench").level
    with streams.logged():
        logging.getLogger("cntk_bench.data").warning("%s\nis odd", "x\x1b[31m")
    assert capsys.readouterr().err == "x\\x1b[31m is odd\n"
    assert program.call(["info", "--verbose"]) == 0
    assert logging.getLogger().handlers == before and logging.getLogger("cntk_bench").level == level


def test_a_warning_of_several_stages_is_printed_once_per_command(capsys):
    import logging

    for _ in range(2):
        with streams.logged():
            for words in ("one", "other", "one"):
                logging.getLogger("cntk_bench.data").warning("%s is odd", words)
        assert capsys.readouterr().err == "one is odd\nother is odd\n"


def test_no_progress_bar_but_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress.bar("computing", "pairs") as advance:
        advance(0, total=10, done=3)
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_a_progress_bar_outlives_its_terminal():
    code = (
        "import os, pty, sys, time\n"
        "main, side = pty.openpty()\n"
        "os.dup2(side, 2); os.close(side)\n"
        "from cntk_bench.cli import progress\n"
        "with progress.bar('computing', 'pairs') as advance:\n"
        "    advance(0, total=10, done=3)\n"
        "    time.sleep(0.3)\n"
        "    shown = os.read(main, 1000)\n"
        "    os.close(main)\n"
        "    advance(1)\n"
        "    time.sleep(0.3)\n"
        "assert b'computing' in shown\n"
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 2)\n"
        "print('goes on')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TERM": "xterm"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


def caused(error, cause):
    error.__cause__ = cause
    return error


def named(number, name):
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("error", "remedy", "code"),
    [
        (UserError("x is 3: use 4"), "x is 3: use 4", 2),
        (VerificationError("tile 3 is damaged"), "is damaged", 1),
        (UserError(None), "error: UserError", 2),
        (UserError(""), "error: UserError", 2),
        (KeyboardInterrupt(), "interrupted", 130),
        (Interrupted(2), "interrupted", 130),
        (Interrupted(15), "ended by SIGTERM", 143),
        (caused(SystemError("initialization failed"), Interrupted(10)), "ended by SIGUSR1", 138),
        (caused(ImportError("numpy"), KeyboardInterrupt()), "interrupted", 130),
        (MemoryError(), "use fewer images", 2),
        (named(errno.ENOMEM, None), "use fewer images", 2),
        (ImportError("x.so: failed to map segment from shared object"), "use fewer images", 2),
        (RuntimeError("can't start new thread"), "raise the limit (ulimit -u)", 2),
        (named(errno.EAGAIN, None), "raise the limit (ulimit -u)", 2),
        (named(errno.EMFILE, "a"), "raise the limit (ulimit -n)", 2),
        (named(errno.ENFILE, "a"), "raise the limit (ulimit -n)", 2),
        (named(errno.EACCES, "run/a"), "run/a: Permission denied: use another path", 2),
        (named(errno.ENAMETOOLONG, "x" * 5000), "File name too long: use another path", 2),
        (named(errno.ELOOP, b"m\xfcll"), r"m\udcfcll: Too many levels of symbolic links: use another", 2),
        (named(errno.EIO, None), "Input/output error: mend that", 2),
        (OSError("odd"), "odd: mend that", 2),
        (OSError(), "OSError: mend that", 2),
        (ModuleNotFoundError("No module named 'numba'", name="numba"), "import numba (No module", 2),
        (UnicodeEncodeError("ascii", "größe", 2, 3, "no"), "set LC_ALL=C.UTF-8", 2),
        (ZeroDivisionError("1/0"), "ZeroDivisionError: 1/0: this is a fault of cntk-bench", 2),
        (Exception("x" * 10**6), "report it", 2),
        (Exception(None), "Exception: Exception: this is a fault", 2),
    ],
    ids=lambda value: str(value)[:30],
)
def test_each_error_is_one_line_with_its_remedy_and_exit_code(monkeypatch, capsys, error, remedy, code):
    from cntk_bench.records.directory import Run

    def fails(*_):
        raise error

    monkeypatch.setattr(Run, "config", fails)
    assert program.call(["solve", "somewhere"]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.endswith("\n") and err[:-1].isprintable() and len(err) <= 301
    assert remedy in err and "None" not in err


def test_debug_raises_what_went_wrong():
    with pytest.raises(UserError, match="is not a run"):
        program.call(["solve", "nowhere", "--debug"])


@pytest.mark.parametrize("megabytes", [60, 100, 200, 400, 800])
def test_little_memory_is_one_line_at_once(tmp_path, megabytes):
    """This is too little for the libraries; with 200 MiB, one of them used to retry for ever."""
    line = f"ulimit -v {1024 * megabytes}; $cntk compute {QUICKSTART} --output {tmp_path}/x"
    done = shell(line)
    assert done.returncode == 2 and done.stdout == "" and not list(tmp_path.iterdir())
    assert re.fullmatch(r"error: .*(raise it|raise the limit) \(ulimit -v\).*\n", done.stderr)
