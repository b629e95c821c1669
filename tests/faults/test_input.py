"""Hostile configs, overrides, names, records and data files: one line each, and nothing is left behind."""

import io
import json
import os
import shutil
import sys
import zipfile

import numpy as np
from bench import CONFIG, manners

DEEP = "[" * 10**5
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 40)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML = {
    "a number": b"3",
    "a null byte": b"name: a\0b",
    "Latin-1": "name: größe".encode("latin-1"),
    "a tag of Python": b"name: !!python/object/apply:os.system ['echo']",
    "depth": f"dataset: {DEEP}".encode(),
    "a billion laughs": LAUGHS.encode(),
    "merge keys": MERGES.encode(),
    "itself": b"dataset: &a {name: *a}",
    "a key twice": b"dataset: {name: digits, name: npz}",
    "a tab": b"dataset:\n\tname: digits",
    "a key that is a list": b"? [a, b]\n: c",
    "ten megabytes": b"name: " + b"x" * 10**7,
    "escape sequences": b'name: "\\e]0;title\\a"',
    "a surrogate": b'name: "\\ud800"',
    "a date": b"dataset: {train: 2020-13-45}",
    "binary": b"name: !!binary gIGC",
}
SETS = (
    "dataset.train=", "dataset.train=1:40", "dataset.train=0x9999", "dataset.train=1e3",
    "dataset.train=-1", "dataset.train=1_0", "dataset.train=" + "9" * 5000, "dataset.train=null9",
    "kernel.depths=[10000000000000000000000]", "kernel.depths=[.nan]", "kernel.depths=[3, 3]",
    "kernel.depths=3", "kernel.columns=[CNTK-LAP99999]", "kernel.columns=[]",
    "kernel.columns=[" + "x" * 10**5 + "]",
    "solve.ridge=.nan", "solve.ridge=.inf", "solve.ridge=-1", "solve.ridge=true", "solve.ridge=[]",
    "compute.tile=0", "compute.tile=auto9", "compute.backend=abacus", "dataset.name=cifar11",
    "dataset.seed=-1",
    "dataset.path=/dev/zero", "=3", "dataset", "dataset.", ".=", "dataset.path=\x1b]0;a\x07", "name=../x",
    "name=" + "n" * 10**6, "dataset.train={a: b}", "dataset=3", "kernel=[1]", "a.b.c.d=1",
    "dataset.path=\udcff",
)  # fmt: skip


def refused(bench, *arguments, **more):
    """None if a command is refused with one line and code 2, leaving no directory; else what is wrong."""
    output = bench.folder / "output"
    shutil.rmtree(output, ignore_errors=True)
    done = bench.commands.call(*arguments, "--output", output, **more)
    left = "a directory is left" if os.path.lexists(output) else None
    return manners(done, (2,)) or left or (len(done.stderr.splitlines()) != 1 and done.stderr) or None


def test_hostile_configs(bench):
    kind = "hostile configs"
    for what, content in YAML.items():
        path = bench.folder / "hostile.yaml"
        path.write_bytes(content)
        bench.survive(kind, what, lambda path=path: refused(bench, "compute", path))
    bench.report(kind)


def test_hostile_overrides(bench):
    kind = "hostile overrides"
    for value in SETS:
        bench.survive(
            kind, value[:60], lambda value=value: refused(bench, "compute", bench.config, "--set", value)
        )
    bench.report(kind)


def test_paths_that_are_no_files(bench):
    kind = "paths that are no files"
    pipe = bench.folder / "pipe"
    os.mkfifo(pipe)
    loop = bench.folder / "loop"
    loop.symlink_to(loop)
    places = (
        "/dev/zero",
        pipe,
        bench.folder,
        loop,
        bench.folder / "nowhere",
        "/dev/full",
        "",
        "x" * 5000,
        "~nobody9/x",
    )
    for place in places:
        bench.survive(kind, f"config {place}"[:60], lambda place=place: refused(bench, "compute", place))
        override = f"dataset={{name: npz, path: '{place}'}}"
        bench.survive(
            kind, override[:60], lambda o=override: refused(bench, "compute", bench.config, "--set", o)
        )
        for command in ("solve", "table", "status", "verify"):

            def check(command=command, place=place):
                return manners(bench.commands.call(command, place), (2,))

            bench.survive(kind, f"{command} {place}"[:60], check)
    bench.report(kind)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def claimed(shape):
    """An .npz file whose header claims a shape that its data do not have."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", array)
    return file.getvalue()


def bomb():
    """An .npz file of a small size whose first array decompresses to 200 MiB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x_train.npy", "w", force_zip64=True) as member:
            for _ in range(200):
                member.write(bytes(2**20))
        for name in ("y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", b"")
    return file.getvalue()


X, Y = np.random.default_rng(0).random((8, 4, 4)), np.arange(8) % 2
GOOD = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
DATA = {
    "nothing": b"",
    "no archive": b"PK" * 100,
    "a cut archive": npz(**GOOD)[:-50],
    "a flipped bit": npz(**GOOD)[:200] + b"\xff" + npz(**GOOD)[201:],
    "a claim of terabytes": claimed("(1099511627776, 32, 32)"),
    "a negative shape": claimed("(-3, 4, 4)"),
    "a bomb": bomb(),
    "pickles": npz(**{**GOOD, "x_train": np.array([{"a": 1}], object)}),
    "no labels": npz(x_train=X),
    "text": npz(**{**GOOD, "x_train": np.array(["a"] * 8)}),
    "NaN": npz(**{**GOOD, "x_train": X * np.nan}),
    "no images": npz(**{**GOOD, "x_train": X[:0], "y_train": Y[:0]}),
    "images that are not square": npz(**{**GOOD, "x_train": X[:, :3]}),
    "labels of floats": npz(**{**GOOD, "y_train": Y / 2}),
    "labels beyond": npz(**{**GOOD, "y_test": Y + 10**12}),
    "constant images": npz(**{**GOOD, "x_train": X * 0}),
    "one class": npz(**{**GOOD, "y_train": Y * 0}),
    "complex numbers": npz(**{**GOOD, "x_train": X * 1j}),
    "records": npz(**{**GOOD, "x_train": np.zeros(8, [("a", "f4")])}),
    "numbers beyond float32": npz(**{**GOOD, "x_train": X * 1e300}),
}


def test_hostile_data(bench):
    kind = "hostile data files"
    for what, content in DATA.items():
        path = bench.folder / "data.npz"
        path.write_bytes(content)
        override = f"dataset={{name: npz, path: {path}}}"
        bench.survive(kind, what, lambda o=override: refused(bench, "compute", bench.config, "--set", o))
    bench.report(kind)


NAMES = (
    "a b",
    "größe",
    "数",
    "m\udcfcll",
    "-rf",
    "--help",
    "a\nb",
    "\x1b]0;t\x07",
    "$(echo)",
    "'",
    '"',
    "a:b",
    "~",
    "*",
)


def test_names_of_folders_and_files(bench):
    """In a folder of any name, every command works on a run, or the run is refused before it is computed."""
    kind = "names of folders and files"
    for name in NAMES:
        folder = bench.folder / f"x{name}"
        folder.mkdir()
        config = folder / f"{name}.yaml"
        config.write_text(CONFIG.partition("\n")[2])  # without a name in it, the run is named after the file

        def check(folder=folder, config=config):
            run = folder / "run"
            done = bench.commands.call("run", "--output", run, "--", config, cwd=folder)
            wrong = manners(done)
            if wrong or done.status == 2:
                return wrong or (os.path.lexists(run) and "refused, and a directory is left") or None
            for command in ("verify", "solve", "table", "status"):
                wrong = wrong or manners(bench.commands.call(command, run, cwd=folder), (0,))
            return wrong

        bench.survive(kind, repr(name), check)
    bench.report(kind)


RUBBISH = (
    None, True, -1, 1e999, "x" * 10**6, "\x1b]0;title\x07", "a|b\nc", "\\input{x}", "=cmd()", [], {}, [[[]]],
    "\ud800",
)  # fmt: skip


def test_a_strangers_record(bench):
    """Any value anywhere in a record: either a table without control characters, or one line."""
    kind, rng = "strangers' records", np.random.default_rng(7)
    whole = json.loads((bench.whole / "record.json").read_text())

    def places(value, path=()):
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, inner in items:
            yield (*path, key)
            yield from places(inner, (*path, key))

    shown = [path for path in places(whole) if path[0] in ("name", "data", "solutions", "solve", "format")]
    for index in rng.permutation(len(shown))[: 12 * bench.many]:
        path, value = shown[index], RUBBISH[rng.integers(len(RUBBISH))]
        changed = json.loads(json.dumps(whole))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        run = bench.folder / "run"
        run.mkdir(exist_ok=True)
        (run / "record.json").write_text(json.dumps(changed))

        def check(run=run):
            for form in ("text", "markdown", "csv", "json", "latex"):
                done = bench.commands.call("table", run, "--format", form)
                wrong = manners(done)
                if not wrong and len(done.stdout) > 10**5:
                    wrong = f"{len(done.stdout)} characters"
                if wrong:
                    return f"{form}: {wrong}"
            return None

        bench.survive(kind, f"{path} is {str(value)[:20]!r}", check)
    bench.report(kind)
    assert sys.getrecursionlimit() < 10**5
