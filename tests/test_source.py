"""Config files: all mistakes are reported at once, each with its place; and files that extend others."""

import os
import re

import pytest
from test_cli import QUICKSTART, call, fail

from cntk_bench.config import config
from cntk_bench.errors import Mistakes, UserError
from cntk_bench.text import redacted

WRONG = """\
dataset:
  trian: 5
  test: 1.5
kernel:
  columns: [CNTK-GPA, CNTK-V]
  depths: [3, 3]
solve: {ridge: -1, devise: cpu}
network:
  rates: {CNN-V: [0]}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a file into the folder where the test runs."""
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    return write


def test_every_mistake_is_told_with_its_line_value_and_remedy(write):
    write("wrong.yaml", WRONG)
    done = call(
        *(
            "compute",
            "wrong.yaml",
            "--set",
            "dataset.seed=-1",
            "--set",
            "compute.tile",
            "--set",
            "slove.ridge=1",
        )
    )
    assert done.returncode == 2 and done.stdout == "" and not os.path.exists("runs")
    ridge = (
        "a finite number of at least 0, a list of such numbers (the best by leave-one-out is used), or loo"
    )
    assert done.stderr.splitlines() == [
        "error: 10 mistakes in wrong.yaml:",
        "  wrong.yaml line 2: unknown key dataset.trian: did you mean dataset.train?",
        "  wrong.yaml line 3: dataset.test is 1.5: expected an integer of at least 1, or null for all",
        "  wrong.yaml line 5: column 'CNTK-GPA' is unknown: did you mean CNTK-GAP?",
        "  wrong.yaml line 6: kernel.depths lists 3 twice: list it once",
        f"  wrong.yaml line 7: solve.ridge is -1: expected {ridge}",
        "  wrong.yaml line 7: unknown key solve.devise: did you mean solve.device?",
        "  wrong.yaml line 9: network.rates is {'CNN-V': [0]}: expected a list of distinct numbers above 0, "
        "such as [0.1, 1, 10], or a mapping of such lists by column, such as {CNN-V: [1], CNN-GAP: [100]}",
        "  --set dataset.seed=-1: dataset.seed is -1: expected an integer of at least 0",
        "  --set slove.ridge=1: unknown key slove: did you mean solve?",
        "  --set compute.tile: expected key=value, such as dataset.train=200",
    ]


def test_one_mistake_is_one_line_and_many_are_not_all_told(write):
    write("one.yaml", "name: a\n\ndataset:\n  # images\n  train: 0\n")
    assert fail("compute", "one.yaml").startswith("error: one.yaml line 5: dataset.train is 0: expected")
    write("many.yaml", "".join(f"k{n}: 1\n" for n in range(50)))
    told = call("compute", "many.yaml").stderr.splitlines()
    assert told[0] == "error: 50 mistakes in many.yaml:" and told[-1] == "  and 30 more" and len(told) == 22


def test_checks_of_whole_sections_are_told_beside_others(write):
    write("c.yaml", "solve:\n  solver: cg\n  ridge: loo\nkernel:\n  depths: [1]\ncompute: {store: 's3:/x'}\n")
    with pytest.raises(Mistakes) as caught:
        config.load("c.yaml")
    told = str(caught.value)
    assert "c.yaml line 1: solve.solver cg solves one ridge" in told
    assert "c.yaml line 4: depth 1 is not possible" in told and "c.yaml line 6: compute.store" in told


def test_names_that_nothing_has_are_told_beside_others(write):
    write(
        "c.yaml",
        "dataset: {name: cifra10}\nsolve:\n  solver: chol\n  ridge: x\n"
        "compute: {backend: gpu, executor: slrum}\n",
    )
    told = call("plan", "c.yaml").stderr.splitlines()
    assert told[0] == "error: 5 mistakes in c.yaml:"
    assert told[1] == "  c.yaml line 1: data set cifra10 is unknown: did you mean cifar10?"
    assert "  c.yaml line 3: solver chol is unknown: use one of auto, cholesky, refined, cg" in told
    assert "  c.yaml line 5: backend gpu is unknown: use one of auto, cuda, cpu" in told
    assert "  c.yaml line 5: executor slrum is unknown: did you mean slurm?" in told
    kept = config.load(write("kept.yaml", "solve: {solver: theirs}\n"), kept=True)
    assert kept.solve.solver == "theirs"  # a run from another machine can still be looked at
    assert "solver theirs is unknown" in fail("init", "new.yaml", "--from", "kept.yaml")


def test_a_config_that_ships_is_known_by_a_mistyped_name(write):
    assert fail("plan", "quikstart").endswith(
        "cannot read the config quikstart (No such file or directory): did you mean quickstart?\n"
    )
    assert fail("plan", "quickstart.yaml").endswith("(No such file or directory): did you mean quickstart?\n")
    assert fail("plan", "sub/quickstart.yaml").endswith("(No such file or directory): give a YAML file\n")
    write("c.yaml", "extends: quickstart.yml\n")
    assert fail("plan", "c.yaml").endswith("and none of that name ships: did you mean quickstart?\n")
    remedy = "give a YAML file, or a config that `info` lists"
    assert fail("run", "something").endswith(f"(No such file or directory): {remedy}\n")


def test_a_mistake_of_a_key_that_an_override_replaced_names_the_override(write):
    write("c.yaml", "dataset:\n  train: 5\n")
    assert fail("compute", "c.yaml", "--set", "dataset={train: 0}").startswith(
        "error: --set dataset={train: 0}: "
    )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("s3://ada:pw@host/x", "s3://...@host/x"),
        ("AWS_SECRET_ACCESS_KEY=abc def", "AWS_SECRET_ACCESS_KEY=... def"),
        ("my_token: 'a b' c", "my_token: ... c"),
        ("--set x.password=1", "--set x.password=..."),
        ("{'token': 'abc', 'b': 1}", "{'token': ..., 'b': 1}"),
        ('{"apiKey": "abc"}', '{"apiKey": ...}'),
        ("Authorization: Bearer abc.def x", "Authorization: ... x"),
        ("https://h/x?X-Amz-Signature=abc&part=1", "https://h/x?X-Amz-Signature=...&part=1"),
        ("AWS_SESSION_TOKEN = 'a b'", "AWS_SESSION_TOKEN = ..."),
        ("keep credentials in ~/.aws", "keep credentials in ~/.aws"),
        ("kernel.depths=[3, 4]", "kernel.depths=[3, 4]"),
    ],
)
def test_what_may_be_a_secret_is_left_out(text, kept):
    assert redacted(text) == kept


# extends


def test_a_config_begins_with_what_it_extends(write):
    write("base.yaml", "name: base\ndataset: {train: 50, test: 40, seed: 3}\nkernel: {depths: [3, 4]}\n")
    write("sub/middle.yaml", "extends: ../base.yaml\ndataset: {train: null}\nsolve: {ridge: loo}\n")
    write(
        "top.yaml", "extends: sub/middle.yaml\nkernel: {depths: [6], columns: [CNTK-V]}\ndataset: {test: 7}\n"
    )
    found = config.load("top.yaml", ["dataset.seed=9"])
    assert (found.name, found.dataset.train, found.dataset.test, found.dataset.seed) == ("top", None, 7, 9)
    assert (found.kernel.depths, found.kernel.columns, found.solve.ridge) == ((6,), ("CNTK-V",), "loo")
    alone = write("alone.yaml", config.dump(found))
    assert config.load(alone) == found  # a run's config needs no other file
    assert "extends" not in config.dump(found)


def test_mappings_are_merged_and_lists_are_not(write):
    write("base.yaml", "network: {rates: {CNN-V: [1, 2], CNN-GAP: [5]}}\n")
    write("top.yaml", "extends: base.yaml\nnetwork: {rates: {CNN-V: [3]}}\n")
    assert config.load("top.yaml").network.rates == {"CNN-V": (3,), "CNN-GAP": (5,)}
    write("top.yaml", "extends: base.yaml\nnetwork: {rates: [7]}\n")
    assert config.load("top.yaml").network.rates == (7,)


def test_a_shipped_config_is_extended_by_name_and_a_file_of_that_name_comes_first(write):
    write("mine.yaml", "extends: quickstart\ndataset: {train: 20}\n")
    shipped, mine = config.load(QUICKSTART), config.load("mine.yaml")
    assert (
        mine.name == "mine" and mine.dataset.train == 20 and mine.dataset.test == shipped.dataset.test == 300
    )
    write("quickstart", "dataset: {test: 5}\n")
    assert config.load("mine.yaml").dataset.test == 5
    os.remove("quickstart")
    os.mkdir("quickstart")  # such as the --output of a run
    assert config.load("mine.yaml").dataset.test == 300
    assert call("plan", "quickstart").returncode == 0
    write("null.yaml", "extends: null\n")
    assert config.load("null.yaml") == config.load(None, ["name=null"[:5] + "'null'"])


def test_a_run_keeps_the_whole_config(write, tmp_path):
    write("base.yaml", "kernel: {columns: [RBF]}\ndataset: {train: 20, test: 10}\n")
    write("top.yaml", "extends: base.yaml\n")
    assert call("compute", "top.yaml").returncode == 0
    os.remove("base.yaml")
    kept = config.load("runs/top/config.yaml")
    assert kept.kernel.columns == ("RBF",) and kept.dataset.train == 20
    assert "extends" not in (tmp_path / "runs" / "top" / "config.yaml").read_text()


def test_a_mistake_in_what_is_extended_names_that_file(write):
    write("base.yaml", "name: b\ndataset:\n  trian: 5\n  test: 0\n")
    write("top.yaml", "extends: base.yaml\ndataset:\n  test: -1\n")
    told = call("compute", "top.yaml").stderr
    assert "  base.yaml line 3: unknown key dataset.trian" in told
    assert "  top.yaml line 3: dataset.test is -1" in told and "test is 0" not in told
    write("base.yaml", "dataset: [\n")
    assert re.match("error: base.yaml line 2: not valid YAML: .*top.yaml line 1", fail("compute", "top.yaml"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere.yaml", "extends is 'nowhere.yaml': there is no nowhere.yaml, and none of that name ships"),
        ("quickstrat", "there is no quickstrat, and none of that name ships"),
        ("[a, b]", "extends is ['a', 'b']: expected a file, or the name of a config that ships"),
        ("top.yaml", "extends is 'top.yaml', this file itself: name another one"),
        ("./sub/../top.yaml", "this file itself: name another one"),
    ],
)
def test_what_cannot_be_extended(write, value, message):
    write("sub/x", "")
    write("top.yaml", f"name: a\nextends: {value}\n")
    told = fail("compute", "top.yaml")
    assert told.startswith("error: top.yaml line 2: ") and message in told


def test_circles_and_long_chains_are_refused(write):
    write("a.yaml", "extends: b.yaml\n")
    write("b.yaml", "extends: c.yaml\n")
    write("c.yaml", "extends: a.yaml\n")
    assert "c.yaml line 1: extends is 'a.yaml', which extends this file" in fail("compute", "a.yaml")
    for n in range(12):
        write(f"{n}.yaml", f"extends: {n + 1}.yaml\n")
    assert "more than 10 files extend one another" in fail("compute", "0.yaml")


def test_extends_is_no_override_and_near_misses_are_told(write):
    write("a.yaml", "name: a\n")
    assert "extends stands in a file: give that file as CONFIG" in fail(
        "compute", "a.yaml", "--set", "extends=b"
    )
    write("a.yaml", "extend: b\n")
    with pytest.raises(UserError, match="unknown key extend: did you mean extends?"):
        config.load("a.yaml")


def test_a_dotted_key_in_a_file_is_told_where_it_belongs(write):
    write("a.yaml", "name: a\ndataset.train: 5\n")
    with pytest.raises(UserError) as caught:
        config.load("a.yaml")
    words = "write train indented, on a line of its own below dataset:"
    assert str(caught.value) == f"a.yaml line 2: unknown key dataset.train: {words}"
