"""Sweeps over settings of trained networks, with trained and other columns, and over draws."""

import json

import pytest
from test_document import answered

torch = pytest.importorskip("torch")

from cntk_bench.comparisons import axes  # noqa: E402
from cntk_bench.errors import UserError  # noqa: E402
from cntk_bench.records.directory import Run  # noqa: E402
from cntk_bench.runs import train  # noqa: E402

CONFIG = """
name: nets
dataset: {name: digits, train: 8, test: 6}
kernel: {columns: [CNN-GAP], depths: [3]}
network: {width: 4, rates: [5, 7], trials: 1, batch: 4, epochs: 1, epochs_after: 1}
compute: {backend: cpu, tile: 8}
"""


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """A function from values of --over to the sweep's document."""
    monkeypatch.chdir(tmp_path)
    # Figures are drawn in other tests.
    monkeypatch.setattr("cntk_bench.report.write", lambda past, folder: None)
    (tmp_path / "nets.yaml").write_text(CONFIG)

    def sweep(*over, **more):
        return answered("sweep", "nets.yaml", *(word for one in over for word in ("--over", one)), **more)

    return sweep


@pytest.fixture
def trained(monkeypatch):
    """For each call of the training stage, how many networks it trained."""
    counts, stage = [], train.train
    monkeypatch.setattr(train, "train", lambda *a: (counts.append(stage(*a)), counts[-1])[1])
    return counts


def values(found, *keys):
    return [tuple(row["settings"].get(key) for key in keys) for row in found["rows"]]


def test_each_width_is_trained_once_and_kernels_share_one_gram(swept, trained, tmp_path):
    over = "network.width=[2,4]", "kernel.columns=[CNN-GAP,FC-NTK]"
    first = swept(*over)
    told = [(row["column"], row["settings"].get("network.width"), row["runs"]) for row in first["rows"]]
    assert told == [
        ("CNN-GAP", 2, ["nets@1"]),
        ("CNN-GAP", 4, ["nets@3"]),
        ("FC-NTK", None, ["nets@2", "nets@4"]),  # it has no width, so both runs share a row
    ]
    assert trained == [2, 2]  # one for each rate
    again = swept(*over)
    assert trained == [2, 2, 0, 0] and again["rows"] == first["rows"]
    alone = answered("run", "nets.yaml", "--set", "network.width=2", "-o", "alone")
    assert alone["rows"][0]["accuracy"] == first["rows"][0]["accuracy"]


def test_rates_alone_are_each_a_combination(swept):
    found = swept("network.rates")
    assert values(found, "network.rates") == [([5],), ([7],)]
    both = swept("network.rates=[[5,7]]")["rows"][0]["accuracy"]
    assert both == max(row["accuracy"] for row in found["rows"])  # this config has network.choose: test


def test_draws_and_trials(swept):
    found = swept("dataset.draws=[1,2]", "network.trials=[1,2]")
    assert values(found, "dataset.draws", "network.trials") == [(1, 1), (1, 2), (2, 1), (2, 2)]
    # With several draws, the repetitions are draws; each is the mean of its trials.
    assert [row["repeats"] for row in found["rows"]] == [1, 2, 2, 2]


def test_one_that_cannot_be_trained_does_not_end_the_others(swept, tmp_path, monkeypatch):
    stage = train.train

    def failing(run, settings, *more):
        if settings.network.width == 2:
            raise UserError("it does not fit into the memory: use a smaller network.width")
        return stage(run, settings, *more)

    monkeypatch.setattr(train, "train", failing)
    found = swept("network.width=[2,4]", code=2)
    assert values(found, "network.width") == [(4,)] and found["failed"] == ["network.width=2"]
    assert found["messages"] == [
        "not solved: network.width=2: it does not fit into the memory: use a smaller network.width"
    ]
    kept = json.loads((tmp_path / "runs" / "nets" / "sweep" / "sweep.json").read_text())
    assert [one["values"] for one in kept["failed"]] == [{"network.width": 2}]
    monkeypatch.setattr(train, "train", stage)
    assert values(swept("network.width=[2,4]"), "network.width") == [(2,), (4,)]


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ("network.width=[0,4]", "network.width is 0: expected an integer of at least 1"),
        ("network.widht=[4]", "unknown key network.widht: did you mean network.width?"),
        ("network.device=[cpu,auto]", "changes nothing that a sweep compares: use --set"),
        ("network.validation=[0.1]", "it has no effect but where network.choose is validation: set that"),
        ("solve.ridge=[0,1]", "the columns here (CNN-GAP) do not depend on it"),
        ("network=[{width: 3}]", "network is a section: name one of its keys, such as network.width"),
    ],
)
def test_what_cannot_be_swept(swept, over, reason):
    assert reason in swept(over, code=2)["error"]


def test_a_folder_of_one_sweep_serves_another(swept, tmp_path):
    swept("network.width=[2]")
    swept("network.width=[4]")
    settings = Run(tmp_path / "runs" / "nets").config()
    assert axes.is_apart("dataset.seed", settings) and not axes.is_apart("network.width", settings)
    assert len(list(Run(tmp_path / "runs" / "nets").solves.glob("[0-9]*"))) == 2
