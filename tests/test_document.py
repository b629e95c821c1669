"""--json prints one document on standard output, whatever happens; and the log that a run directory keeps."""

import json
import os
import re
import subprocess
import sys
import threading

import pytest
from test_cli import QUICKSTART, REPOSITORY, call, fail, succeed

from cntk_bench.cli import document, options
from cntk_bench.cli.program import cli
from cntk_bench.report import FORMATS
from cntk_bench.runs.solve import solve
from cntk_bench.system import log

KEYS = "kernel.columns=[FC-NTK]", "kernel.depths=[2]", "dataset.train=20", "dataset.test=10"
TINY = [word for key in KEYS for word in ("--set", key)]
HEAD = {"format", "command", "version", "exit_code", "error", "messages"}


def answered(*arguments, code=0):
    """The document of a command; standard output must hold nothing else, and all numbers must be finite."""
    done = call(*arguments, "--json")
    assert done.returncode == code, done.stderr

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(done.stdout, parse_constant=refuse)
    assert found.keys() >= HEAD and found["format"] == document.FORMAT and found["exit_code"] == code
    assert (found["error"] is None) == (code in (0, 1) or bool(found["messages"]))
    assert found["command"] == arguments[0]
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "tiny"
    found = answered("run", QUICKSTART, *TINY, "-o", output)
    assert found["run"] == str(output) and found["computed"]["tiles"] > 0 and found["solve"] == 1
    assert found["rows"] == answered("table", output)["rows"]
    return output


def test_every_command_has_the_option_and_it_stands_in_one_place():
    for name, command in cli.commands.items():
        flags = [flag for option in command.params for flag in option.opts]
        assert flags.count("--json") == 1, name
    source = [*(REPOSITORY / "cntk_bench" / "cli").glob("*.py")]
    assert [path.name for path in source if '"--json"' in path.read_text()] == ["document.py"]


def test_where_there_is_a_format_the_two_agree(run):
    assert options.FORMATS == tuple(FORMATS)
    rows = json.loads(succeed("table", run, "--format", "json"))
    found = answered("table", run)
    assert found["rows"] == rows and found["solve"] == 1
    lines = succeed("table", run).splitlines()
    assert found["notes"] and all(note in lines for note in found["notes"])
    curves = json.loads(succeed("curve", run, "--sizes", "10,20", "--format", "json"))
    again = answered("curve", run, "--sizes", "10,20")["results"]
    assert [curve["points"] for curve in again] == [curve["points"] for curve in curves]
    assert answered("table", run, "--format", "json")["rows"] == rows
    assert "leave out --json" in answered("table", run, "--format", "csv", code=2)["error"]


def test_what_a_run_is_asked_about_it(run, tmp_path):
    status = answered("status", run)
    assert status["finished"] and status["tiles"]["pairs"] == status["tiles"]["all_pairs"] == 410
    (first,) = answered("solves", run)["solves"]
    accuracy = answered("table", run)["rows"][0]["accuracy"]
    assert first["solve"] == 1 and first["ridge"] == 0 and first["accuracy"] == [accuracy, accuracy]
    checked = answered("verify", run, "--sample", 2)
    assert checked["tiles"] == {"checked": 5, "missing": 0, "damaged": {}, "unreadable": {}}
    assert all(entry["error"] <= entry["tolerance"] for entry in checked["entries"])
    to = tmp_path / "gram.npz"
    assert answered("export", run, "--column", "FC-NTK", "--depth", 2, "--to", to)["files"] == [str(to)]
    assert answered("fetch", "digits")["path"] is None


def test_what_a_machine_is_asked_about(tmp_path):
    found = answered("info")
    assert "cpu" in found["backends"] and found["machine"]["cores"] > 0 and "digits" in found["data_sets"]
    assert "quickstart" in found["configs"]
    script = answered("slurm-script", QUICKSTART, "--shards", 3, "-o", tmp_path / "r")
    assert script["script"].startswith("#!") and script["shards"] == 3
    planned = answered("plan", QUICKSTART, *TINY, "-o", tmp_path / "r")
    assert planned["pairs"] == 410 and planned["time_compute"]["low"] <= planned["time_compute"]["high"]
    rates = answered("bench", "--columns", "FC-NTK", "--size", 4, "--depths", "3", "--seconds", 0.01)
    assert rates["columns"][0]["pairs_per_second"] > 0 and not list(tmp_path.iterdir())


def test_damage_is_told_with_exit_code_1(run, tmp_path):
    import shutil

    copy = shutil.copytree(run, tmp_path / "copy")
    chunk = sorted(copy.glob("gram.zarr/test/c*"))[0]
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 4]) + chunk.read_bytes()[1:])
    found = answered("verify", copy, code=1)
    assert found["tiles"]["damaged"] and "--repair" in found["messages"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("table", "nowhere"), "not a run|no record"),
        (("compute", "nowhere.yaml"), "cannot read the config"),
        (("table", ".", "--solve", "x"), "not a valid integer"),
        (("solve",), "Missing argument"),
        (("compute", QUICKSTART, "--set", "a=1", "--set", "solve.ridge=-1"), "2 mistakes in .*\n.*\n"),
    ],
)  # fmt: skip
def test_an_error_is_a_document_too_and_a_line_for_people(arguments, words):
    found = answered(*arguments, code=2)
    assert re.search(words, found["error"])
    assert call(*arguments, "--json").stderr == f"error: {found['error']}\n"


def test_a_command_that_is_unknown():
    found = json.loads(call("frob", "--json").stdout)
    assert found["command"] is None and "No such command" in found["error"]


def test_help_is_for_people():
    assert succeed("table", "--json", "--help").startswith("Usage: ")


def test_numbers_that_are_not_finite_are_null_and_libraries_that_print_do_no_harm(run, monkeypatch):
    from cntk_bench.runs import solve as stage

    def solved(*_):
        print("a library says hello")
        return {"solve": 7, "solutions": [{}]}

    monkeypatch.setattr(stage, "solved", solved)
    monkeypatch.setattr(
        "cntk_bench.report.rows", lambda record: [{"accuracy": float("nan"), "s": -float("inf")}]
    )
    monkeypatch.setattr("cntk_bench.report.table", lambda *_: "")
    monkeypatch.setattr("cntk_bench.report.notes.notes", lambda record: [])
    done = call("table", run, "--json")
    assert json.loads(done.stdout)["rows"] == [{"accuracy": None, "s": None}]
    assert "says hello" in done.stderr


def test_a_doubted_solution_and_an_interruption(run, monkeypatch):
    from cntk_bench.runs import solve as stage

    def doubted(*arguments):
        record = solve(*arguments)
        record["solutions"][0] |= {"trusted": False, "doubt": "its residual is 0.5"}
        return record

    monkeypatch.setattr(stage, "solve", doubted)
    found = answered("solve", run, code=2)
    assert (
        "1 of 1 solutions are not to be trusted" in found["messages"][0] and not found["rows"][0]["trusted"]
    )

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "solve", interrupted)
    assert answered("solve", run, code=130)["error"] == "interrupted"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_document_that_cannot_be_written():
    command = f"{sys.executable} -m cntk_bench init - --json > /dev/full"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "cannot write to standard output" in done.stderr


# The log

LINE = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ process \d+ on \S+: (\w+|  ).*")


def lines(folder):
    found = (folder / "log.txt").read_text().splitlines()
    assert all(map(LINE.fullmatch, found)), found
    return [line.split(": ", 1)[1] for line in found]


def test_a_run_logs_what_was_asked_its_stages_and_how_it_ended(run):
    before = (run / "log.txt").read_bytes()
    assert call("solve", run, "--set", "solve.ridge=0.1").returncode == 0
    assert (run / "log.txt").read_bytes().startswith(before)
    asked, *told = [line for line in lines(run) if line][len(before.splitlines()) :]
    assert asked.startswith(f"asked: cntk-bench solve {run} --set solve.ridge=0.1; version ")
    assert "; in /" in asked and told[0] == "begun: solving"
    assert any(re.fullmatch(r"info: solving by .*", line) for line in told)
    assert re.fullmatch(r"done: solving in [\d.]+ s", told[-2])
    assert re.fullmatch(r"ended: exit code 0 after [\d.]+ s", told[-1])


def test_what_only_looks_writes_nothing(run):
    before = (run / "log.txt").read_bytes()
    for command in ("table", "solves", "status", "verify"):
        succeed(command, run)
    succeed("plan", QUICKSTART, *TINY, "-o", run)
    assert (run / "log.txt").read_bytes() == before


def test_what_is_no_run_gets_no_log(tmp_path):
    fail("solve", tmp_path)
    fail("compute", QUICKSTART, "--set", "dataset.train=9999", "-o", tmp_path)
    assert not list(tmp_path.iterdir())


def test_errors_are_logged_and_of_those_that_nobody_foresaw_where(run, monkeypatch):
    from cntk_bench.runs import solve as stage

    def broken(*_):
        raise ZeroDivisionError("of s3://ada:hunter2@store")

    fail("solve", run, "--set", "dataset.train=15000")
    assert re.match("error: (?!error)", lines(run)[-2]) and "Traceback" not in lines(run)[-3]
    monkeypatch.setattr(stage, "solve", broken)
    assert call("solve", run).returncode == 2
    told = lines(run)[-60:]
    assert any("Traceback" in line for line in told) and any("in broken" in line for line in told)
    assert any(re.fullmatch(r"stopped: solving after [\d.]+ s by ZeroDivisionError", line) for line in told)
    assert told[-1].startswith("ended: exit code 2")
    assert "hunter2" not in (run / "log.txt").read_text() and "s3://...@store" in told[-2] + told[-3]


def test_no_secret_is_logged(run):
    secret = "solve.ridge=0 # token: abc123, AWS_SECRET_ACCESS_KEY=xyz789"  # with a YAML comment
    assert call("solve", run, "--set", secret).returncode == 0
    text = (run / "log.txt").read_text()
    assert "abc123" not in text and "xyz789" not in text
    assert any("solve.ridge=0 # token: ..." in line for line in lines(run) if line.startswith("asked"))


def test_many_writers_tear_no_line_and_the_file_stays_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "MOST", 20_000)
    file = tmp_path / "log.txt"

    def write(who):
        for number in range(300):
            log.append(file, f"{who}-{number}-{'x' * 40}\n".encode())

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [(tmp_path / name).read_bytes() for name in ("log.1.txt", "log.txt")]
    assert all(0 < len(content) <= 21_000 for content in kept)
    whole = b"".join(kept).decode().splitlines()
    assert all(re.fullmatch(r"\d-\d+-x{40}", line) for line in whole)
    assert {f"{who}-299-{'x' * 40}" for who in range(4)} & set(whole)  # the newest lines are kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.1.txt", "log.txt"]


def test_processes_append_whole_lines(tmp_path):
    code = (
        "import sys; from pathlib import Path; from cntk_bench.system import log\n"
        "for n in range(400): log.append(Path('log.txt'), f'{sys.argv[1] * 500}-{n}\\n'.encode())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    started = [
        subprocess.Popen([sys.executable, "-c", code, letter], cwd=tmp_path, env=environment)
        for letter in "abc"
    ]
    assert [process.wait(timeout=100) for process in started] == [0, 0, 0]
    expected = {f"{letter * 500}-{n}" for letter in "abc" for n in range(400)}
    found = (tmp_path / "log.txt").read_text().splitlines()
    assert len(found) == 1200 and set(found) == expected


@pytest.mark.parametrize("place", ["full disk", "folder", "link"])
def test_a_log_that_cannot_be_written_stops_nothing(run, tmp_path, monkeypatch, place):
    import shutil

    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "log.txt").unlink()
    (tmp_path / "victim").write_text("precious")
    if place == "folder":
        (copy / "log.txt").mkdir()
    elif place == "link":
        (copy / "log.txt").symlink_to(tmp_path / "victim")
    else:
        append = log.append

        def full(*arguments):
            monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
            try:
                append(*arguments)
            finally:
                monkeypatch.undo()
                monkeypatch.setattr(log, "append", full)

        monkeypatch.setattr(log, "append", full)
    done = call("solve", copy)
    assert (done.returncode, done.stderr) == (0, "") and "FC-NTK" in done.stdout
    assert (tmp_path / "victim").read_text() == "precious"
