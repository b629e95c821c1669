"""Files of a run that are damaged, missing, or replaced by something that is not a file."""

import os
import shutil
import time

import numpy as np
import pytest
from bench import grams, manners, predictions, same_bits

from cntk_bench.grams import store

ESCAPES = b"\x1b]0;title\x07\x1b[2J|\n=cmd()\\input{x}"


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)


def cut(path, rng):
    path.write_bytes(path.read_bytes()[: -rng.integers(1, 20)])


def overwrite(path, rng):
    data = bytearray(path.read_bytes())
    place = rng.integers(len(data))
    data[place : place + 30] = rng.bytes(30)
    path.write_bytes(data)


def folder(path, _):
    path.unlink()
    path.mkdir()


def link(path, _):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def loop(path, _):
    path.unlink()
    path.symlink_to(path)


def pipe(path, _):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "a flipped bit": flip,
    "a cut": cut,
    "garbage inside": overwrite,
    "nothing in it": lambda path, _: path.write_bytes(b""),
    "escape sequences": lambda path, _: path.write_bytes(ESCAPES),
    "a megabyte": lambda path, _: path.write_bytes(b"[" * 2**20),
    "no file": lambda path, _: path.unlink(),
    "a folder": folder,
    "a dangling link": link,
    "a link to itself": loop,
    "a pipe": pipe,
}
CHUNK, LOG = "gram.zarr/t*/c.*", "gram.zarr/journals/*"
FILES = {
    "chunks": CHUNK,
    "the log": LOG,
    "metadata": "gram.zarr/**/zarr.json",
    "labels and indices": "gram.zarr/*/c/0",
    "records": "record.json",
    "settings": "config.yaml",
    "solves": "solves/1/solve.json",
    "solutions": "solutions/*",
}
COMMANDS = (("status",), ("table",), ("solves",), ("verify", "--sample", "2"), ("solve",))


def holds_right_numbers(run, whole):
    """None if every finished tile that `verify` passed has the finished run's numbers; else what is wrong."""
    theirs, found = grams(whole), store.open(run / "gram.zarr")
    for tile in found.progress.done():
        block = theirs[tile.part][:, tile.rows(found.plan), tile.cols(found.plan)]
        if not np.array_equal(found.read(tile), block):
            return f"verify passed wrong numbers of {tile}"
    return None


@pytest.mark.parametrize("what", FILES)
def test_a_damaged_file(bench, what):
    """Every command says so in a line or is right without the file; a store is mended or refused."""
    rng, kind = np.random.default_rng(4), f"damaged {what}"
    for name, damage in DAMAGES.items():
        for _ in range(max(1, bench.many // 3)):
            run = bench.copy()
            file = rng.choice(sorted(map(str, run.glob(FILES[what]))))
            damage(run / file, rng)

            def check(run=run):
                for command, *options in COMMANDS:
                    done = bench.commands.call(command, run, *options)
                    wrong = manners(done, (0, 1, 2))
                    if not wrong and command == "verify" and done.status == 0:
                        wrong = holds_right_numbers(run, bench.whole)
                    if wrong:
                        return f"{command}: {wrong}"
                repaired = bench.commands.call("verify", run, "--repair")
                again = bench.compute(run)
                wrong = manners(repaired, (0, 1, 2)) or manners(again)
                if not wrong and again.status == 0:
                    wrong = same_bits(run, bench.whole)
                elif not wrong and what == "chunks":
                    wrong = f"not mended: {again.stderr}"
                return wrong

            bench.survive(kind, f"{name} in {os.path.relpath(file, run)}", check)
    bench.report(kind)


STRAYS = {
    "train/c.0.0.0.bak": b"copy",
    "train/c.9.9.9": b"chunk of nothing",
    "train/.nfs0001": b"",
    "train/c.0.1.0.0123abcd.partial": b"half",
    "test/thesis.txt": b"precious",
    ".DS_Store": b"\0",
    "train/c.0.0.0~": b"",
}


def test_stray_files(bench):
    kind = "stray files beside the chunks"
    for name, content in STRAYS.items():
        run = bench.copy()
        (run / "gram.zarr" / name).write_bytes(content)

        def check(run=run):
            found = bench.commands.call("verify", run, "--sample", "2")
            wrong = manners(found, (0,)) or manners(bench.compute(run), (0,))
            return wrong or same_bits(run, bench.whole)

        bench.survive(kind, name, check)
    bench.report(kind)


# Locks and links


HOSTILE = {
    "a process that is gone": b"process 999999 on here\n",
    "a megabyte": b"x" * 2**20,
    "escape sequences": ESCAPES,
    "nothing": b"",
    "bytes": bytes(range(256)),
}


def test_a_stale_or_hostile_lock(bench):
    """A lock file that no process holds keeps nobody out, whatever it contains."""
    kind = "stale and hostile locks"
    for what, content in HOSTILE.items():
        for place in ("lock", "gram.zarr/lock"):
            run = bench.begun()
            (run / place).write_bytes(content)

            def check(run=run):
                return manners(bench.compute(run), (0,)) or same_bits(run, bench.whole)

            bench.survive(kind, f"{what} in {place}", check)
    bench.report(kind)


PLANTED = (
    *("lock", "gram.zarr/lock", "gram.zarr/journals", "record.json", "config.yaml"),
    *("report", "solutions", "solutions/CNTK-V-3.npz", "report/table.txt", "solves", "solves/2"),
    *("record.json.new", "config.yaml.new", ".record.json.new"),
)


@pytest.mark.parametrize("command", ["compute", "solve", "verify --repair"])
def test_a_planted_link_is_never_written_through(bench, command):
    kind = "links planted in a run"
    for place in PLANTED:
        for hard in (False, True):
            run, victim = bench.copy(), bench.folder / "victim"
            shutil.rmtree(victim, ignore_errors=True)
            path, target = run / place, victim / "inside"
            victim.mkdir()
            if path.is_dir():
                shutil.rmtree(path)
                target.mkdir()
                (target / "table.txt").write_bytes(b"precious")
            else:
                content = path.read_bytes() if path.exists() else b"precious"
                path.unlink(missing_ok=True)
                target.write_bytes(content)
            if hard and target.is_dir():
                continue
            path.parent.mkdir(exist_ok=True)
            os.link(target, path) if hard else path.symlink_to(target)
            before = {file: file.read_bytes() for file in victim.rglob("*") if file.is_file()}

            def check(run=run, victim=victim, before=before):
                name, *options = command.split()
                if name == "compute":
                    done = bench.commands.call("run", bench.config, "--output", run)
                else:
                    done = bench.commands.call(name, run, *options)
                after = {file: file.read_bytes() for file in victim.rglob("*") if file.is_file()}
                return manners(done) or (after != before and "the other file was changed") or None

            bench.survive(kind, f"{'hard link' if hard else 'link'} at {place} before {command}", check)
    bench.report(kind)


def test_nothing_of_a_finished_run_is_touched_by_reading(bench):
    """status, table and solves change no file; verify changes only the record and the lock."""
    kind = "commands that only read"
    run = bench.copy()
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}
    time.sleep(0.01)
    for command in ("status", "table", "solves", "verify"):

        def check(command=command):
            wrong = manners(bench.commands.call(command, run), (0,))
            after = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}
            changed = {file for file in before.keys() | after.keys() if before.get(file) != after.get(file)}
            if command == "verify":  # it adds itself to the record
                changed -= {run / "record.json", run / "lock"}
            return wrong or (changed and "files were changed") or None

        bench.survive(kind, command, check)
    bench.report(kind)
    assert predictions(run) == predictions(bench.whole)
