"""A run directory: solves are complete and numbered, and never written through a link."""

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cntk_bench.errors import UserError
from cntk_bench.records import cells, mirror, provenance, record
from cntk_bench.records import solves as runs
from cntk_bench.records.directory import Run
from cntk_bench.runs.solve import solves
from cntk_bench.system.files import write_atomic

DATA = {"name": "digits", "fingerprint": "ab12", "n_train": 60, "n_test": 40, "classes": 10}
DATA |= {"preprocess": "standardize"}


def solve_of(ridge):
    solutions = [{"column": "CNTK-V", "depth": 3, "accuracy": 90.0, "ridge": ridge}]
    return record.stage("solve", {"solve": {"ridge": ridge}}) | {"data": DATA, "solutions": solutions}


def write_report(past, folder):
    folder.mkdir()
    (folder / "table.txt").write_text(f"ridge {past['solutions'][0]['ridge']}")


def put(run, ridge):
    with runs.new_solve(run, {}) as folder:
        np.savez(folder / "CNTK-V-3.npz", ridge=ridge)
        return runs.publish(run, folder, solve_of(ridge), write_report)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    record.save(record.start("digits", DATA), tmp_path / "run" / "record.json")
    return Run(tmp_path / "run")


def latest(run):
    """The ridge of the last solve, from every place that has it; all should agree."""
    return {
        float(np.load(run.solutions / "CNTK-V-3.npz")["ridge"]),
        record.load(run.record)["solutions"][0]["ridge"],
        float((run.report / "table.txt").read_text().split()[1]),
        json.loads((run.solutions / "solve.json").read_text())["solutions"][0]["ridge"],
    }


def test_every_solve_is_kept_and_the_last_is_shown(run):
    assert runs.numbers(run) == []
    first, second = put(run, 0.5), put(run, 0.25)
    assert (first["solve"], second["solve"]) == (1, 2) and runs.numbers(run) == [1, 2]
    assert latest(run) == {0.25}
    assert [runs.read_solve(run, n)["solutions"][0]["ridge"] for n in (1, 2)] == [0.5, 0.25]
    assert np.load(run.solves / "1" / "CNTK-V-3.npz")["ridge"] == 0.5
    assert (run.solves / "1" / "report" / "table.txt").read_text() == "ridge 0.5"
    assert [stage["solve"] for stage in record.load(run.record)["stages"]] == [1, 2]
    assert sorted(path.name for path in run.path.iterdir()) == [
        "lock", "record.json", "report", "solutions", "solves",
    ]  # fmt: skip
    assert sorted(path.name for path in run.solves.iterdir()) == ["1", "2"]


def test_a_copy_of_a_solution_may_be_changed_by_hand(run):
    """If a user's change to `solutions` replaces the files, the kept solve stays as it was."""
    put(run, 0.5)
    shutil.rmtree(run.solutions)
    put(run, 0.25)
    assert latest(run) == {0.25} and runs.read_solve(run, 1)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize(
    "place", ["report/mine.html", "solutions/K.npz", "report/mine/notes", "report/table.txt"]
)
def test_what_a_user_has_put_into_a_shown_folder_is_kept(run, monkeypatch, caplog, place, killed):
    """Whether by hand or by `export`, `page` and `figures`; also if the replacing process was killed."""
    folder, name = place.split("/", 1)
    put(run, 0.5)
    mine = run.path / place
    mine.parent.mkdir(exist_ok=True)
    write_atomic(mine, "precious")
    if killed:
        with monkeypatch.context() as patch:
            patch.setattr(mirror, "_put_away", lambda *_: None)
            put(run, 0.25)
    put(run, 0.125)
    put(run, 0.0625)
    assert (run.path / f"{folder}-1" / name).read_text() == "precious" and latest(run) == {0.0625}
    assert not (run.path / f"{folder}-2").exists() and not list(run.path.glob(".*"))
    (told,) = caplog.messages
    assert " is now /" in told and told.endswith(f"/run/{folder}-1")  # long paths lose their middles


@pytest.mark.parametrize("linked", [True, False])
def test_shown_folders_without_anything_else_do_not_pile_up(run, monkeypatch, linked):
    if not linked:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError()))
    for number in range(11):
        put(run, 0.5 / (1 + number))
        (run.report / ".DS_Store").touch()
    assert {path.name for path in run.path.iterdir()} == {"lock", "record.json", *MADE}


MADE = {"report", "solutions", "solves"}


def test_a_file_system_without_hard_links(run, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    put(run, 0.5)
    assert latest(run) == {0.5}


def test_where_a_run_keeps_what(tmp_path):
    run = Run(tmp_path)
    names = {name: getattr(run, name).relative_to(tmp_path).as_posix() for name in KEPT}
    assert names == KEPT
    with run.lock():
        assert (tmp_path / "lock").exists()


KEPT = {"gram": "gram.zarr", "record": "record.json", "solves": "solves"}
KEPT |= {"solutions": "solutions", "report": "report"}


def test_an_update_changes_the_record_and_gives_it_back(run):
    changed = run.update(lambda past: past | {"name": "renamed"})
    assert changed == record.load(run.record) and changed["name"] == "renamed"


def test_a_stage_tells_its_solve_and_keeps_no_second_copy_of_data_and_solutions(run):
    (stage,) = put(run, 0.5)["stages"]
    assert stage["solve"] == 1 and stage["settings"] == {"solve": {"ridge": 0.5}}
    assert not {"data", "solutions"} & set(stage)


def test_a_solve_has_its_place_on_the_disk_before_the_record_tells_of_it(run, monkeypatch):
    events, flush, save = [], runs.flush, record.save
    monkeypatch.setattr(runs, "flush", lambda path: (events.append(path.name), flush(path)))
    monkeypatch.setattr(record, "save", lambda *args: (events.append("record"), save(*args)))
    put(run, 0.5)
    assert events == ["solves", "record"]


def test_a_solve_waits_until_another_process_has_changed_the_run(run):
    with ThreadPoolExecutor(1) as pool:
        with run.lock():
            later = pool.submit(put, run, 0.25)
            time.sleep(0.1)
            assert runs.numbers(run) == []
        assert later.result(60)["solve"] == 1


def test_a_number_that_json_does_not_have_is_not_published(run):
    put(run, 0.5)
    with pytest.raises(ValueError, match="JSON compliant"):
        put(run, float("nan"))
    assert latest(run) == {0.5} and runs.numbers(run) == [1]


def test_a_run_directory_that_is_gone(run):
    shutil.rmtree(run.path)
    with pytest.raises(UserError, match="cannot write .*No such file.*use another output directory"):
        put(run, 0.5)


@pytest.mark.parametrize("name", ["solutions", "report"])
def test_a_file_in_the_place_of_a_folder_is_replaced(run, name):
    (run.path / name).write_text("in the way")
    put(run, 0.5)
    assert latest(run) == {0.5}
    assert not list(run.path.glob(".*"))


@pytest.mark.parametrize("name", ["solutions", "report", "record.json"])
def test_a_planted_link_is_replaced_and_not_written_through(run, tmp_path, name):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "table.txt").write_text("precious")
    if name == "record.json":
        (victim / "record.json").write_bytes(run.record.read_bytes())
        run.record.unlink()
    before = {path.name: path.read_bytes() for path in victim.iterdir()}
    (run.path / name).symlink_to(victim / name if name == "record.json" else victim)
    put(run, 0.5)
    assert latest(run) == {0.5} and not (run.path / name).is_symlink()
    assert {path.name: path.read_bytes() for path in victim.iterdir()} == before
    assert not list(run.path.glob(".*"))


def test_solves_that_are_a_link_are_refused(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run.solves.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="solves is a link: put the folder itself there"):
        put(run, 0.5)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def fail(*_):
    raise OSError(28, "No space left on device")


def test_a_solve_that_cannot_be_published_leaves_the_last_one(run, monkeypatch):
    put(run, 0.5)
    with runs.new_solve(run, {}) as folder, pytest.raises(UserError, match="no space left"):
        np.savez(folder / "CNTK-V-3.npz", ridge=0.25)
        monkeypatch.setattr(type(folder), "rename", fail)
        runs.publish(run, folder, solve_of(0.25), write_report)
    monkeypatch.undo()
    assert latest(run) == {0.5} and runs.numbers(run) == [1]
    assert [path.name for path in run.solves.iterdir()] == ["1"]


def test_a_report_that_cannot_be_made_costs_no_solve(run, caplog):
    with runs.new_solve(run, {}) as folder:
        np.savez(folder / "CNTK-V-3.npz", ridge=0.25)
        runs.publish(run, folder, solve_of(0.25), fail)
    assert runs.numbers(run) == [1] and record.load(run.record)["solve"] == 1
    assert "solve 1 has no whole report: " in caplog.text


@pytest.mark.parametrize("name", ["7", "999999999"])
def test_a_folder_that_is_no_solve_has_no_number(run, name):
    put(run, 0.5)
    (run.solves / name).mkdir()
    assert put(run, 0.25)["solve"] == 2 and put(run, 0.125)["solve"] == 3
    (run.solves / "4").write_text("in the way")
    assert put(run, 0.0625)["solve"] == 5 and runs.numbers(run) == [1, 2, 3, 5]


@pytest.mark.parametrize(
    "change",
    [
        {"settings": [1]},
        {"settings": {"solve": 3}},
        {"data": None},
        {"data": DATA | {"n_train": "60"}},
        {"data": DATA | {"n_test": 0}},
        {"solutions": []},
        {"solutions": [{"column": "CNTK-V", "depth": 3, "accuracy": 10**400}]},
        {"solutions": [{"column": "CNTK-V", "depth": 3, "accuracy": float("inf")}]},
    ],
    ids=repr,
)
def test_a_damaged_solve_is_told_and_hides_no_other(run, change):
    put(run, 0.5)
    put(run, 0.25)
    file = run.solves / "1" / "solve.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match="solve.json is damaged"):
        runs.read_solve(run, 1)
    first, second = solves(run)
    assert "is damaged" in first["damaged"] and second["solutions"][0]["ridge"] == 0.25


@pytest.mark.parametrize("step", range(1, 5))
def test_a_kill_while_a_solve_is_published(run, step):
    """The record never names a solve that does not exist, and the next solve tidies up."""
    put(run, 0.5)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from cntk_bench.records import solves\nfrom cntk_bench.records.directory import Run\n"
        "sys.path.insert(0, sys.argv[2]); from test_run import put\n"
        "rename, left = Path.rename, [int(sys.argv[3])]\n"
        "def killing(*names):\n    rename(*names); left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Path.rename = killing\nput(Run(Path(sys.argv[1])), 0.25)"
    )
    here = os.path.dirname(__file__)
    subprocess.run([sys.executable, "-c", code, run.path, here, str(step)], timeout=120)
    past = record.load(run.record)
    assert past["solutions"][0]["ridge"] == runs.read_solve(run, past["solve"])["solutions"][0]["ridge"]
    put(run, 0.125)
    assert latest(run) == {0.125}
    assert not list(run.path.glob(".solutions*")) + list(run.path.glob(".report*"))


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_does_is_not(run):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom cntk_bench.records import solves\n"
        "from cntk_bench.records.directory import Run\n"
        f"with solves.new_solve(Run(Path({str(run.path)!r})), {{}}):\n"
        "    print(flush=True)\n    sys.stdin.read()"
    )
    child = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(child, **pipes) as killed, subprocess.Popen(child, **pipes) as living:
        for process in (killed, living):
            assert process.stdout.readline()
        killed.kill()
        killed.wait()
        assert len(list(run.solves.glob(".*"))) == 2
        put(run, 0.5)
        (left,) = run.solves.glob(".*")
        assert left.is_dir()  # only the lock of such a folder shows that its process is alive
        living.communicate()
    assert list(run.solves.glob(".*")) == []


CELL = {"column": "CNTK-V", "depth": 3, "accuracy": 90.0, "path": [0.5, None]}


def interrupt(run, asked):
    with runs.new_solve(run, asked) as folder:
        np.savez(folder / "CNTK-V-3.npz", ridge=0.5)
        cells.keep_cell(folder, CELL)
    return folder


def test_the_cells_of_an_interrupted_solve_are_there_for_the_same_solve(run):
    left = interrupt(run, {"ridge": 0.5})
    with runs.new_solve(run, {"ridge": 0.25}) as other:
        assert other != left and cells.solved_cell(other, "CNTK-V", 3) is None
    assert not other.exists()  # it contained no cells
    with runs.new_solve(run, {"ridge": 0.5}) as folder, runs.new_solve(run, {"ridge": 0.5}) as beside:
        assert folder == left and beside != left  # the first one is in use
        assert (
            cells.solved_cell(folder, "CNTK-V", 3) == CELL and cells.solved_cell(folder, "CNTK-V", 4) is None
        )
        runs.publish(run, folder, solve_of(0.5), write_report)
    assert latest(run) == {0.5} and sorted(path.name for path in run.solves.iterdir()) == ["1"]
    assert sorted(path.name for path in (run.solves / "1").iterdir()) == [
        "CNTK-V-3.npz",
        "report",
        "solve.json",
    ]


def test_another_solve_leaves_the_cells_of_an_interrupted_one(run):
    left = interrupt(run, {"ridge": 0.5, "code": provenance.code()})
    older = interrupt(run, {"ridge": 0.5, "code": "0"})  # no later solve will continue this one
    put(run, 0.25)
    assert not older.exists()
    with runs.new_solve(run, {"ridge": 0.5, "code": provenance.code()}) as folder:
        assert folder == left and cells.solved_cell(folder, "CNTK-V", 3) == CELL


def unseen(monkeypatch):
    """Locks of folders hold for one machine only, as on network file systems; those of files hold for all."""
    real = cells.try_lock

    def try_lock(handle):
        return True if stat.S_ISDIR(os.fstat(handle).st_mode) else real(handle)

    monkeypatch.setattr(cells, "try_lock", try_lock)


def test_a_solve_on_another_machine_is_neither_removed_nor_entered(run, monkeypatch):
    unseen(monkeypatch)
    asked = {"ridge": 0.5, "code": provenance.code()}
    with runs.new_solve(run, asked) as folder:
        put(run, 0.25)
        assert (folder / "cells" / "asked.json").exists()  # it has no cell yet
        with runs.new_solve(run, asked) as beside:
            assert beside != folder
    assert [path.name for path in run.solves.iterdir()] == ["1"]


@pytest.mark.parametrize("held", [False, True])
def test_what_an_older_version_left_without_a_file_to_lock_is_resumed_once_it_is_free(run, held):
    left = interrupt(run, {"ridge": 0.5})
    (left / "lock").unlink()
    handle = os.open(left, os.O_RDONLY)
    if held:
        fcntl.flock(handle, fcntl.LOCK_EX)
    with runs.new_solve(run, {"ridge": 0.5}) as folder:
        assert (folder == left) is not held
    os.close(handle)
    assert left.is_dir()


def test_a_folder_is_locked_until_it_is_removed(run, monkeypatch):
    """Else another process could begin in it; and on NFS, an open file keeps a name until it is closed."""
    rmtree, close, locked = shutil.rmtree, os.close, []

    def removing(path, **more):
        if path.name == "cells":
            return rmtree(path, **more)
        with open(path / "lock", "rb+") as file:
            locked.append(cells.try_lock(file.fileno()) is False)
        assert not (path / "cells").exists()
        rmtree(path, **more)
        path.mkdir()
        (path / ".nfs0123").touch()

    def closing(handle):
        close(handle)
        for file in run.solves.glob("*/.nfs*"):
            file.unlink()

    with runs.new_solve(run, {}):
        (run.solves / f"{cells.BEGUN}0123abcd").mkdir()
        monkeypatch.setattr(cells.shutil, "rmtree", removing)
        monkeypatch.setattr(cells.os, "close", closing)
        cells.remove_useless(run)
        assert len(list(run.solves.iterdir())) == 1
    assert locked == [True, True] and not list(run.solves.iterdir())


def finish(run, ridge=0.5):
    """Finish a solve and publish it; returns the cell that an earlier call had left, if any."""
    with runs.new_solve(run, {"ridge": ridge, "code": provenance.code()}) as folder:
        found = cells.solved_cell(folder, "CNTK-V", 3)
        np.savez(folder / "CNTK-V-3.npz", ridge=ridge)
        cells.keep_cell(folder, CELL)
        runs.publish(run, folder, solve_of(ridge), write_report)
    return found


@pytest.mark.parametrize("what", ["place", "record"])
@pytest.mark.parametrize("error", [OSError(28, "full"), OSError(5, "broken"), KeyboardInterrupt()], ids=repr)
def test_a_solve_that_fails_while_it_is_published_keeps_its_cells(run, monkeypatch, what, error):
    put(run, 0.25)
    rename = Path.rename

    def failing(path, *more):
        if what == "record" or path.name.startswith(cells.BEGUN):
            raise error
        return rename(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "rename") if what == "place" else (record, "save")), failing)
        with pytest.raises((UserError, KeyboardInterrupt)):
            finish(run)
    assert runs.numbers(run) == [1] and latest(run) == {0.25}
    assert finish(run) == CELL and runs.numbers(run) == [1, 2] and latest(run) == {0.5}
    assert not list(run.solves.glob("*/cells"))


def killed(run, monkeypatch, ridge=0.5):
    """Leave a solve as SIGKILL does just before the record is saved: in its place, nothing tidied up."""
    with monkeypatch.context() as patch:
        patch.setattr(record, "save", fail)
        patch.setattr(runs, "_published", lambda past: {len(runs.numbers(run))})
        with pytest.raises(UserError):
            finish(run, ridge)


@pytest.mark.parametrize("then", ["settle", "the same solve", "another"])
def test_a_solve_that_is_killed_before_the_record_tells_of_it_is_told_by_the_next(run, monkeypatch, then):
    put(run, 0.25)
    killed(run, monkeypatch)
    assert runs.numbers(run) == [1, 2] and record.load(run.record)["solve"] == 1
    runs.settle(run) if then == "settle" else finish(run, 0.5 if then == "the same solve" else 0.125)
    past = record.load(run.record)
    told = [stage["solve"] for stage in past["stages"] if stage["stage"] == "solve"]
    assert told == runs.numbers(run) == ([1, 2] if then == "settle" else [1, 2, 3])
    assert runs.read_solve(run, 2)["solutions"][0]["ridge"] == 0.5
    assert latest(run) == {0.125 if then == "another" else 0.5} and not list(run.solves.glob("*/cells"))


def test_a_solve_that_a_running_one_puts_in_its_place_is_told_once(run, monkeypatch):
    """Without locks, two processes may both enter it into the record."""
    put(run, 0.25)
    save, past = record.save, record.load(run.record)

    def beside(new, path):
        monkeypatch.setattr(record, "save", save)
        runs._settle(run)
        save(new, path)

    monkeypatch.setattr(record, "save", beside)
    finish(run)
    past = record.load(run.record)
    assert [one["solve"] for one in past["stages"] if one["stage"] == "solve"] == [1, 2]
    assert latest(run) == {0.5} and runs.numbers(run) == [1, 2]


def test_what_is_no_solve_of_ours_is_left_alone(run, tmp_path):
    put(run, 0.25)
    (tmp_path / "elsewhere" / "cells").mkdir(parents=True)
    (tmp_path / "elsewhere" / "solve.json").write_text("{}")
    (run.solves / "7").symlink_to(tmp_path / "elsewhere")
    (run.solves / "3.bak" / "cells").mkdir(parents=True)
    (run.solves / "9" / "cells").mkdir(parents=True)
    (run.solves / "9" / "solve.json").write_text("{")
    put(run, 0.125)
    assert latest(run) == {0.125}
    assert all(path.is_dir() for path in (tmp_path / "elsewhere" / "cells", run.solves / "3.bak" / "cells"))
    assert (run.solves / "9" / "cells").is_dir()


@pytest.mark.parametrize("lost", ["solutions", "report"])
def test_the_last_solve_is_shown_again(run, lost):
    put(run, 0.5)
    put(run, 0.25)
    shutil.rmtree(run.path / lost)
    (run.path / f".{lost}-0123abcd").mkdir()
    runs.show_last(run)
    assert latest(run) == {0.25} and not list(run.path.glob(".*-0123abcd"))


def test_a_digit_that_has_changed_is_damage(run):
    put(run, 0.5)
    for file in (run.record, run.solves / "1" / "solve.json"):
        text = file.read_text()
        assert '"accuracy": 90.0' in text
        file.write_text(text.replace('"accuracy": 90.0', '"accuracy": 98.0'))
        with pytest.raises(UserError, match="the digest of its solutions does not fit"):
            record.load(file) if file == run.record else runs.read_solve(run, 1)
        file.write_text(text)


@pytest.mark.parametrize("file", ["CNTK-V-3.npz", "cells/CNTK-V-3.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "a pipe"])
def test_a_cell_that_is_damaged_is_filled_again(run, file, damage):
    path = interrupt(run, {}) / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "a pipe":
        os.mkfifo(path)
    with runs.new_solve(run, {}) as folder:
        assert folder == path.parents[file.count("/")]
        assert cells.solved_cell(folder, "CNTK-V", 3) is None


def test_a_leftover_that_cannot_be_removed_keeps_no_solve_from_its_place(run, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    (run.solves / f"{cells.BEGUN}0123abcd").mkdir(parents=True)
    monkeypatch.setattr(os, "rmdir", refuse)
    put(run, 0.5)
    assert latest(run) == {0.5}


def test_a_solve_that_is_not_there_or_damaged(run):
    with pytest.raises(UserError, match="has no solve 1: its solves are none yet"):
        runs.read_solve(run, 1)
    put(run, 0.5)
    put(run, 0.25)
    with pytest.raises(UserError, match="has no solve 7: its solves are 1, 2$"):
        runs.read_solve(run, 7)
    for text in ("", "[]", "{}", '{"solutions": [{"column": 3}]}'):
        (run.solves / "1" / "solve.json").write_text(text)
        with pytest.raises(UserError, match="damaged"):
            runs.read_solve(run, 1)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="not a run directory .no config.yaml.: give the --output of a run"):
        Run(tmp_path).config()


def test_an_output_directory_with_files_of_others_is_refused_unless_it_is_a_run(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "thesis.txt").touch()
    run.require_own()
    (tmp_path / "config.yaml").touch()
    (tmp_path / "report").mkdir()
    (tmp_path / "lock").write_text("mine")
    words = (
        "is no run, but has config.yaml and report, which a run would replace: use another output directory"
    )
    with pytest.raises(UserError, match=words):
        run.require_own()
    (tmp_path / "lock").unlink()
    with run.lock():  # as where a run's Gram matrices are in an object store, and its first call was killed
        run.require_own()
    (tmp_path / "lock").unlink()
    (tmp_path / "record.json").touch()
    run.require_own()
