"""A wide network's curve, kept by `run`, lies on the flow of its kernel, printed by `flow`."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trained import call, changed, write  # noqa: E402

from cntk_bench.report import style  # noqa: E402


@pytest.mark.parametrize("loss, rate, batch", [("mean", 100.0, "all"), ("sum", 1.0, "10")])
def test_a_wide_networks_curve_lies_on_the_flow_of_its_kernel(tmp_path, monkeypatch, loss, rate, batch):
    """The units of t agree: stretching time by a quarter would at least double the difference."""
    write(tmp_path, monkeypatch)
    monkeypatch.setattr(style, "save", lambda *_: [])  # drawing would take seconds
    asked = (
        "dataset.train=20", "kernel.columns=[FC-NTK, FC-NN]", "network.width=1500", "network.kappa=0.05",
        f"network.loss={loss}", f"network.rates=[{rate}]", f"network.batch={batch}", "network.trials=1",
        "network.epochs=32", "network.epochs_after=1000",
    )  # fmt: skip
    call("run", "nets.yaml", *changed(*asked), "--output", "run")
    curve = json.loads(Path(f"run/solutions/FC-NN-2-curve-rate-{rate:g}-trial-0.json").read_text())
    kernel = ("flow", "run", "--column", "FC-NTK", "--stop", "none", "--format", "json", "--times")
    (facts,) = json.loads(call(*kernel, "1"))
    epochs = [epoch for epoch, t in enumerate(curve["time"]) if t > 0]
    times = np.array(curve["time"])[epochs] / facts["unit"]
    (facts,) = json.loads(call(*kernel, ",".join(map(repr, times.tolist()))))
    train = np.array([point["train_loss"] for point in facts["curve"]])
    # Losses start at 0.09; towards the end, the network is faster.
    inside = (train < 0.9 * 0.09) & (train > 0.4 * 0.09)
    assert inside.sum() > 3
    for kind in ("train", "test"):
        flow = np.array([point[f"{kind}_loss"] for point in facts["curve"]])
        found = 0.09 * np.array(curve[f"{kind}_loss"])[epochs] / curve[f"{kind}_loss"][0]
        stretched = np.interp(1.25 * times, times, flow)
        error, wrong = (np.abs(some - flow)[inside].max() for some in (found, stretched))
        assert error < 0.5 * wrong, (kind, error, wrong)
