"""`init` writes a config that explains itself; `plan` estimates prices; progress without a terminal."""

import json
import re

import pytest
from test_cli import QUICKSTART, REPOSITORY, call, fail, succeed

from cntk_bench.cli import progress
from cntk_bench.config import config, mistakes, template

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
SMALL = "kernel.columns=[FC-NTK]", "kernel.depths=[2]", "dataset.train=20", "dataset.test=10"


def test_what_init_writes_loads_to_the_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "written: config.yaml" in succeed("init")
    assert config.load("config.yaml") == config.load(None)
    succeed(
        "init", "other.yaml", "--from", "quickstart", "--set", "dataset.train=20", "--set", "solve.ridge=loo"
    )
    expected = config.load(QUICKSTART, ["name=other", "dataset.train=20", "solve.ridge=loo"])
    assert config.load("other.yaml") == expected
    text = (tmp_path / "other.yaml").read_text()
    assert "  # an integer of at least 1, or null for all; default null\n  train: 20\n" in text
    assert "  # an integer of at least 0\n  seed: 0\n" in text
    assert succeed("init", "-", "--from", "other.yaml") == text
    assert json.loads(succeed("init", "-", "--from", "other.yaml", "--json"))["config"] == text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_written_and_loads_back(path, tmp_path):
    found = config.load(path)
    (tmp_path / "x.yaml").write_text(template.written(found))
    assert config.load(tmp_path / "x.yaml") == found


def test_every_key_is_there_with_its_description():
    text = template.written(config.load(None))
    for key, description in mistakes.fields(config.Config).items():
        leaf = key.rpartition(".")[2]
        assert re.search(rf"^ *{leaf}:", text, re.MULTILINE), key
        said = " ".join(re.sub(r"\n *# ", " ", text).split())
        assert description == "a mapping" or key == "name" or description in said, key


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_nothing_is_overwritten(tmp_path, kind):
    target = tmp_path / "c.yaml"
    (tmp_path / "precious").write_text("precious")
    {"file": lambda: target.write_text("precious"), "link": lambda: target.symlink_to(tmp_path / "gone"),
     "folder": target.mkdir}[kind]()  # fmt: skip
    assert "is not overwritten" in fail("init", target)
    assert kind != "file" or target.read_text() == "precious"
    assert not (tmp_path / "gone").exists()


def test_what_cannot_be_written_or_is_wrong_leaves_nothing(tmp_path):
    assert "did you mean dataset.train" in fail("init", tmp_path / "a.yaml", "--set", "dataset.trian=1")
    assert "No such file" in fail("init", tmp_path / "nowhere" / "a.yaml")
    assert not list(tmp_path.iterdir())


# Money


def planned(tmp_path, *more):
    settings = [word for key in SMALL for word in ("--set", key)]
    return json.loads(succeed("plan", QUICKSTART, *settings, "-o", tmp_path / "r", "--json", *more))


@pytest.mark.parametrize("workers", [1, 3, 50])
def test_money_is_that_of_all_workers_until_the_last_ends_and_of_one_for_the_solve(tmp_path, workers):
    found = planned(tmp_path, "--workers", workers, "--price-per-hour", 7200)
    last = -(-found["tiles"] // workers) / found["tiles"]  # the largest share of the tiles that a worker has
    for end in ("low", "high"):
        seconds = workers * last * found["time_compute"][end] + found["time_solve"][end]
        assert found["money"][end] == pytest.approx(2 * seconds)
        assert found["time_all"][end] == pytest.approx(
            last * found["time_compute"][end] + found["time_solve"][end]
        )


def test_money_is_told_only_if_asked_and_in_the_words_asked_for(tmp_path):
    settings = [word for key in SMALL for word in ("--set", key)]
    command = ("plan", QUICKSTART, *settings, "-o", tmp_path / "r")
    assert "money" not in succeed(*command)
    told = succeed(*command, "--price-per-hour", "3e8", "--currency", "EUR")
    assert re.search(
        r"^money +[\d,]+\.\d\d to [\d,]+\.\d\d EUR, at 3e\+08 EUR for each hour", told, re.MULTILINE
    )
    assert "needs a price: add --price-per-hour" in fail(*command, "--currency", "EUR")
    for price in ("nan", "-1", "inf"):
        assert "price" in fail(*command, "--price-per-hour", price)


# Progress


def test_progress_off_a_terminal_is_lines_that_grow_fewer(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setenv(progress.PAUSE, "no number")
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.bar("computing", "pairs") as advance:
        advance(0, total=10_060, done=1000)
        for _ in range(2000):
            now[0] += 1
            advance(2)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and all(line.isprintable() for line in lines)
    assert lines[0] == "computing: 1,060 of 10,060 pairs, 2 pairs/s, about 75 min left"
    at = [(int(re.search(r": ([\d,]+) of", line)[1].replace(",", "")) - 1000) // 2 for line in lines]
    gaps = [after - before for before, after in zip([0, *at], at, strict=False)]
    assert min(gaps) == 30 and max(gaps) > 80 and len(lines) < 2000 / 30
    assert all(
        gap == max(30, gap) and gap <= max(30, 0.05 * moment + 1)
        for gap, moment in zip(gaps, at, strict=True)
    )


def test_a_command_tells_its_progress_in_lines(tmp_path, monkeypatch):
    settings = [word for key in SMALL for word in ("--set", key)]
    monkeypatch.setenv(progress.PAUSE, "0")
    monkeypatch.setattr(progress, "SHARE", 0.0)
    done = call("compute", QUICKSTART, *settings, "-o", tmp_path / "r", "--set", "compute.tile=10")
    assert done.returncode == 0
    assert re.search(r"^computing: 410 of 410 pairs, [\d,]+ pairs/s$", done.stderr, re.MULTILINE)
    assert "\r" not in done.stderr and "\x1b" not in done.stderr
    assert "progress: computing: " in (tmp_path / "r" / "log.txt").read_text()
