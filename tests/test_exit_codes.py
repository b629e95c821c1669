"""All ways to end, for commands that need no PyTorch; and endings that only some commands have."""

import sys

import pytest
from endings import Case, Endings, told
from test_cli import call
from test_networks_exit_codes import CASES as TRAINED

from cntk_bench.cli import program

CELL = "--column", "FC-NTK", "--depth", "2"
CASES = {
    "run": Case(("tiny.yaml", "-o", "new"), (("none.yaml",), ("tiny.yaml", "--set", "a.b=1"), ()), True),
    "fetch": Case(("digits",), (("digitz",), (), ("none.yaml",), ("digits", "--path", "~nobody-here/x"))),
    "compute": Case(("tiny.yaml", "-o", "new"), (("tiny.yaml", "--shard", "3/2"), ("run",)), True),
    "slurm-script": Case(("tiny.yaml", "-o", "new"), (("tiny.yaml", "--shards", "0"), ("none.yaml",))),
    "solve": Case(("run",), (("none",), ("run", "--set", "dataset.seed=2"), ()), True),
    "table": Case(("run",), (("none",), ("run", "--solve", "9"), ("run", "--format", "x"), ())),
    "solves": Case(("run",), (("none",), ("computed",), ())),
    "status": Case(("run",), (("none",), ("run", "--every", "0"), ())),
    "verify": Case(("run",), (("none",), ("run", "--sample", "-1"), ("run", "--set", "solve.ridge=x"))),
    "export": Case(
        ("run", *CELL, "--to", "new.npz"),
        (("run", *CELL, "--to", "k.txt"), ("run", *CELL[:3], "9", "--to", "k.npz"), ("run",)),
        True,
    ),
    "figures": Case(("run", "--output", "new"), (("none",), ("computed",), ("run", "--width", "x")), True),
    "page": Case(("run", "-o", "new.html"), (("none",), ("computed",), ("run", "-o", ".")), True),
    "compare": Case(("run", "run@1", "-o", "new"), (("none",), ("run@7",), ("run@x",), ()), True,
                    frozenset({"rows"})),
    "sweep": Case(
        ("tiny.yaml", "-o", "new", "--over", "solve.ridge=[0,0.1]"),
        (("tiny.yaml",), ("tiny.yaml", "--over", "solve.rigde=[0]"), ("none.yaml", "--over", "solve.ridge")),
        True,
        frozenset({"networks", "trained"}),
    ),
    "flow": Case(("run", *CELL), (("none",), ("run", "--times", "0"), ("run", "--depth", "3")), True),
    "posterior": Case(("run", "--depth", "2"), (("none",), ("run", *CELL), ("run", "--ridge", "nan")), True),
    "curve": Case(("run", *CELL), (("none",), ("run", "--sizes", "1.5"), ("run", "--sizes", "99999")), True),
    "plan": Case(("tiny.yaml", "-o", "new"), (("none.yaml",), ("tiny.yaml", "--currency", "EUR")),
                 sometimes=frozenset({"networks", "time_train", "time_paid", "money"})),
    "bench": Case(
        ("--columns", "FC-NTK", "--size", "4", "--depths", "3", "--seconds", "0.01"),
        (("--columns", "RBF"), ("--depths", "x"), ("--scratch", "none"), ("--backend", "none")),
        True,
    ),
    "info": Case((), (("more",),)),
    "init": Case(("new.yaml",), (("tiny.yaml",), ("x.yaml", "--from", "none"), ("x.yaml", "--set", "name=/")),
                 True),
}  # fmt: skip


def test_every_command_is_in_a_table():
    assert CASES.keys() | TRAINED.keys() == program.cli.commands.keys()


class TestEveryCommand(Endings):
    CASES = CASES

    def test_1_damage_that_verify_finds(self, there):
        chunk = sorted(there.glob("run/gram.zarr/test/c*"))[0]
        content = chunk.read_bytes()
        chunk.write_bytes(bytes([content[0] ^ 4]) + content[1:])
        done = call("verify", "run")
        assert done.returncode == 1 and "damaged: " in done.stdout
        assert "--repair" in told(done, 1) and call("verify", "run", "--repair").returncode == 0

    @pytest.mark.parametrize("command", ["solve", "flow", "curve", "posterior", "export"])
    def test_1_damage_that_others_come_upon(self, there, command):
        for chunk in there.glob("run/gram.zarr/test/c*"):
            chunk.write_bytes(bytes(len(chunk.read_bytes())))
        assert "verify" in told(call(command, *CASES[command].right), 1)

    @pytest.mark.parametrize(
        ("library", "words", "extra"),
        [
            ("torch", ("run", "trained.yaml", "-o", "new"), "torch"),
            ("torch", ("train", "trained.yaml", "-o", "new"), "torch"),
            ("torch", ("plan", "trained.yaml", "-o", "new"), "torch"),
            ("torch", ("sweep", "trained.yaml", "-o", "new", "--over", "network.width=[2]"), "torch"),
            ("torch", ("converge", "trained.yaml", "-o", "new"), "torch"),
            ("torch", ("export", "run", *CELL, "--to", "new.pt"), "torch"),
            ("h5py", ("export", "run", *CELL, "--to", "new.h5"), "export"),
            ("distributed", ("compute", "tiny.yaml", "-o", "new", "--executor", "dask"), "cluster"),
            (
                "obstore",
                ("compute", "tiny.yaml", "-o", "new", "--set", "compute.store=s3://bucket/k"),
                "cluster",
            ),
        ],
    )
    def test_2_a_missing_extra(self, there, monkeypatch, library, words, extra):
        """The message has the command that installs it, and nothing has been computed."""
        for module in [one for one in sys.modules if one.split(".")[0] == library]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, library, None)
        for module in ("cntk_bench.executors.dask", "cntk_bench.executors.connections"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        assert f"pip install 'cntk-bench[{extra}]'" in told(call(*words), 2)
        assert not list(there.glob("new*/*/*"))

    def test_figures_that_cannot_be_drawn_are_something_to_mend(self, there, monkeypatch):
        from cntk_bench.report import style

        def broken(*_):
            raise ImportError("libpng is missing")

        monkeypatch.setattr(style, "image", broken)
        assert "libpng is missing" in told(call("figures", "run", "--only", "accuracy"), 2)

    @pytest.mark.parametrize(
        "words",
        [
            ("compute", "tiny.yaml", "-o", "run"),
            ("compute", "tiny.yaml", "-o", "new", "--set", "kernel.columns=[RBF]"),
            ("plan", "tiny.yaml", "--set", "kernel.columns=[RBF]"),
            ("fetch", "tiny.yaml"),
            ("status", "run", "--follow"),
        ],
    )
    def test_0_where_there_is_nothing_to_do(self, there, words):
        done = call(*words)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout

    def test_2_a_doubted_solution_is_printed_all_the_same(self, there, monkeypatch):
        from cntk_bench.runs import solve as stage

        monkeypatch.setattr(
            stage, "doubtful", lambda solutions: [dict(solutions[0], doubt="its residual is 0.5")]
        )
        done = call("solve", "run")
        assert "FC-NTK" in done.stdout and "its residual is 0.5" in told(done, 2)
