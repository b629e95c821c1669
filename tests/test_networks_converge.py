"""`converge`: slopes, what is kept and continued, what is refused, and the command from end to end."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cntk_bench import networks  # noqa: E402
from cntk_bench.analyses import converge as stage  # noqa: E402
from cntk_bench.analyses import finite, widths  # noqa: E402
from cntk_bench.cli import program  # noqa: E402
from cntk_bench.config import config  # noqa: E402
from cntk_bench.errors import UserError  # noqa: E402
from cntk_bench.kernels import convolutional  # noqa: E402
from cntk_bench.kernels.spec import Readout  # noqa: E402
from cntk_bench.networks.architecture import Architecture  # noqa: E402
from cntk_bench.networks.empirical import nngp, ntk  # noqa: E402
from cntk_bench.records.directory import Run  # noqa: E402
from cntk_bench.report import converge as report  # noqa: E402
from cntk_bench.report import listing as listings  # noqa: E402

TOY = """
name: toy
dataset: {name: digits}
converge:
  {kinds: [V, FC], depths: [3], widths: [4, 8], seeds: 2, trained: 1, images: 3, steps: 2, iterations: 2}
"""


@pytest.fixture
def toy(tmp_path):
    """A function from overrides to settings; and a run."""
    file = tmp_path / "toy.yaml"
    file.write_text(TOY)
    return lambda *overrides: config.load(file, overrides), Run(tmp_path / "run")


@pytest.fixture
def counted(monkeypatch):
    """The networks that were measured, in order."""
    done, measure = [], finite.measure
    monkeypatch.setattr(finite, "measure", lambda *a: (done.append(a[:4]), measure(*a))[1])
    return done


def call(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = program.call([*map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


def test_the_slope_of_a_power_law_is_its_exponent():
    x = np.array([8, 16, 64, 512])
    found, error = widths.slope(x, 3 * x**-0.5, [0.0] * 4)
    assert found == pytest.approx(-0.5, abs=1e-12) and error == 0
    assert widths.slope(x, 3 * x**-0.5, [None] * 4)[1] == pytest.approx(0, abs=1e-12)
    assert widths.slope([2, 4], [1, 0.5], [None, 0.1]) == (pytest.approx(-1), None)


@pytest.mark.parametrize("known", [True, False])
def test_the_standard_error_of_a_slope_is_the_spread_of_slopes(known):
    rng, x, spread = np.random.default_rng(0), np.array([16, 32, 64, 256, 512]), 0.05
    drawn = 2 / x * (1 + spread * rng.standard_normal((4000, 5)))
    found = [widths.slope(x, y, spread * 2 / x if known else [None] * 5) for y in drawn]
    slopes, errors = np.array(found).T
    assert slopes.mean() == pytest.approx(-1, abs=0.01)
    assert np.sqrt((errors**2).mean()) == pytest.approx(slopes.std(), rel=0.05)
    polyfit, covariance = np.polyfit(np.log(x), np.log(drawn[0]), 1, cov="unscaled" if known else True)
    assert slopes[0] == pytest.approx(polyfit[0])
    if not known:
        assert errors[0] == pytest.approx(covariance[0, 0] ** 0.5)


def item(width, seed, **measures):
    place = {"kind": "V", "depth": 3, "width": width, "seed": seed}
    return place | {"trained": True} | dict.fromkeys(finite.MEASURES) | {"loss_after": 1.0} | measures


def untrained(width, seed, **measures):
    """An item of a network of which no training was asked for."""
    found = item(width, seed, **measures)
    del found["loss_after"]
    return found


def test_what_diverged_is_said_and_averaged_into_nothing():
    sound = {"error": 0.5, "drift": 0.2, "movement": 0.1, "layer": 0.3}
    items = [item(8, 0, **sound), item(8, 1, error=9.0, movement=0.1, layer=0.1), item(16, 0, **sound)]
    found = widths.gathered(items)
    first, second = found["means"]
    assert (first["networks"], first["diverged"], second["diverged"]) == (2, 1, 0)
    assert first["drift"] == 0.2 and first["movement"] == 0.1 and first["drift_deviation"] is None
    assert first["error"] == 4.75  # measured at initialisation, so failures count, too
    doubts = {slope["measure"]: slope["doubt"] for slope in found["slopes"]}
    assert doubts["drift"] == "training of 1 network failed" and doubts["error"] is None
    how = {"converge": {"steps": 1, "rate": 0.1, "iterations": 0, "seeds": 2, "trained": 2}}
    data = {"name": "digits", "images": 3}
    text = listings.written(report.listing({"name": "n", "data": data, "made": {"settings": how}, **found}))
    assert "Training: 1 steps" in text and "kappa =" not in text
    marked = [line.split()[2] for line in text.splitlines() if line.endswith("?")]
    assert marked == ["8", "slope"] and "training of 1 network failed" in text


def test_what_is_no_training_is_said_and_averaged_into_nothing():
    """A loss that did not fall, though all is finite; and outputs that depend on no weight."""
    sound = {"error": 0.5, "drift": 0.2, "movement": 0.1, "layer": 0.3, "loss_before": 2.0}
    risen = sound | {"drift": 7.0, "loss_after": 2.5}
    still = sound | {"drift": None, "movement": 0.0, "distance": 1.0, "loss_after": 2.0}
    found = widths.gathered(
        [item(8, 0, **sound), item(8, 1, **risen), item(16, 0, **sound), item(16, 1, **still)]
    )
    assert [row["diverged"] for row in found["means"]] == [1, 1]
    assert (
        [row["drift"] for row in found["means"]]
        == [row["movement"] * 2 for row in found["means"]]
        == [0.2, 0.2]
    )
    lazy = {"error": 0.5, "distance": 1.0}
    found = widths.gathered([untrained(8, 0, **lazy), *(untrained(w, 1, kappa=0.3, **lazy) for w in (8, 16))])
    doubts = {slope["measure"]: slope["doubt"] for slope in found["slopes"]}
    assert doubts == {"error": None, "kappa": "no output of 1 network depended on a weight"}


def test_what_too_few_widths_have_is_in_doubt_and_has_no_slope():
    """Otherwise a study in which all training failed would pass for a sound one."""
    sound = {"error": 0.5, "drift": 0.2, "movement": 0.1, "layer": 0.3}
    for of_second, trained in ((sound, True), ({"error": 0.5}, False)):
        second = (item if trained else untrained)(16, 1, **of_second)
        items = [item(8, 0, **sound), item(16, 0, error=0.5), second]
        slopes = {slope["measure"]: slope for slope in widths.gathered(items)["slopes"]}
        assert set(slopes) == {"error", "drift", "movement", "layer"} and slopes["error"]["doubt"] is None
        assert (slopes["drift"]["slope"] is None) == (not trained)
        assert {slopes[name]["doubt"] for name in widths.TRAINED} == {"training of 1 network failed"}
    still = [untrained(width, 0, error=0.5, distance=1.0) for width in (8, 16)]
    error, kappa = widths.gathered(still)["slopes"]  # training, which was not asked for, has no entry
    assert error["doubt"] is None and (kappa["measure"], kappa["slope"]) == ("kappa", None)
    assert kappa["doubt"] == "no output of 2 networks depended on a weight"


def test_a_call_whose_training_always_failed_is_no_success(toy, tmp_path, monkeypatch):
    measure, failing = finite.measure, {"drift": np.nan, "movement": np.nan, "loss_after": np.nan}
    monkeypatch.setattr(finite, "measure", lambda *a: measure(*a) | failing)
    asked = (
        "converge.kinds=[FC]",
        "converge.seeds=1",
        "converge.iterations=0",
    )
    arguments = (
        tmp_path / "toy.yaml",
        "--output",
        tmp_path / "run",
        *(w for o in asked for w in ("--set", o)),
    )
    code, out, err = call("converge", *arguments)
    assert code == 2 and "training of 2 networks failed (it diverged" in out
    assert "slopes missing: FC drift: training of 2 networks failed: use a smaller converge.rate" in err
    (line,) = [line.split() for line in out.splitlines() if " slope " in line]
    assert not line[-1].endswith("?")  # those of the errors, which are not in doubt


def test_networks_without_an_active_unit_end_no_call(toy, tmp_path):
    settings, run = toy
    asked = ("converge.widths=[1, 2]", "converge.kinds=[FC]", "converge.seeds=3", "converge.trained=3")
    found = stage.converge(run, settings(*asked))
    still = [one for one in found["networks"] if one["error"] == 1]  # a network whose kernel is zero
    assert 0 < len(still) < 6 and all(one["kappa"] is one["drift"] is None for one in still)
    assert sum(row["diverged"] for row in found["means"]) >= len(still)
    code, _, err = call(
        "converge", tmp_path / "toy.yaml", "--output", run.path, *(w for o in asked for w in ("--set", o))
    )
    assert code == 2 and "networks failed: use a smaller converge.rate, or larger widths" in err
    assert "Traceback" not in err and len(err.splitlines()) == 1


def test_slopes_against_numpy_and_what_is_expected():
    rng = np.random.default_rng(1)
    items = [untrained(w, s, error=v) for w in (8, 16, 64) for s, v in enumerate(rng.uniform(1, 2, 5) / w)]
    found = widths.gathered(items)
    means = [np.mean([i["error"] for i in items if i["width"] == w]) for w in (8, 16, 64)]
    assert [row["error"] for row in found["means"]] == pytest.approx(means)
    (slope,) = found["slopes"]
    assert slope["slope"] == pytest.approx(np.polyfit(np.log([8, 16, 64]), np.log(means), 1)[0])
    assert (slope["measure"], slope["expected"]) == ("error", -0.5)
    asked = [
        ("drift", "V", 4),
        ("movement", "GAP", 3),
        ("movement", "FC", 2),
        ("layer", "V", 4),
        ("layer", "GAP", 4),
    ]
    assert [finite.expected(*one) for one in asked] == [-1, -1, -0.5, -0.5, -1]
    assert finite.expected("kappa", "GAP", 3) is None and finite.expected("kappa", "GAP", 4) == -0.5


@pytest.mark.parametrize("kind, beta", [("V", 0.0), ("GAP", 0.0), ("FC", 0.5)])
def test_limits_are_what_networks_have_on_average(kind, beta):
    x = np.random.default_rng(0).standard_normal((3, 1, 4, 4)).astype("f4")
    exact = finite.limit(x, kind, 3, beta, "cpu")
    if kind != "FC":
        readouts = [Readout("ntk", kind.lower(), 3), Readout("nngp", kind.lower(), 3)]
        np.testing.assert_allclose(
            [exact.ntk, exact.nngp], convolutional.gram(x, readouts=readouts), rtol=1e-5
        )
    net, t, seeds = Architecture(kind.lower(), 3, 128, 1, 4, 1, beta=beta), torch.tensor(x), 60
    for kernel, true in ((ntk, exact.ntk), (nngp, exact.nngp)):
        found = np.array([kernel(net, net.weights(seed), t).numpy() for seed in range(seeds)])
        error = found.std(0, ddof=1) / seeds**0.5
        assert (abs(found.mean(0) - true) < 5 * error + 3 / 128 * abs(true)).all()
        assert (error < 0.1 * true.diagonal().max()).all()
    assert exact.output_factor**2 * exact.nngp.trace() / 3 == pytest.approx(1)
    assert exact.largest == pytest.approx(np.linalg.norm(exact.ntk, 2) * exact.output_factor**2)


def test_one_network_by_hand(toy):
    from cntk_bench.networks import lazy
    from cntk_bench.runs import images

    settings, _ = toy
    how = settings("converge.dtype=float64", "converge.beta=0.2", "converge.outputs=2").converge
    loaded = images.load(settings(), 3, 1)
    exact = finite.limit(loaded.x_train, "FC", 3, 0.2)
    found = finite.measure("FC", 3, 16, 0, loaded, exact, how)
    net = Architecture("fc", 3, 16, 1, 8, 2, exact.output_factor, 0.2)
    w, x = net.weights(finite.seed_of("FC", 3, 16, 0), torch.float64), torch.tensor(loaded.x_train).double()
    y = torch.tensor([[0.9 if label == o else -0.1 for o in (0, 1)] for label in loaded.y_train]).double()
    theta = ntk(net, w, x)
    true = torch.tensor(exact.ntk) / (exact.nngp.trace() / 3)
    assert found["error"] == pytest.approx(float((theta - true).norm() / true.norm()))
    true = torch.tensor(exact.nngp) / (exact.nngp.trace() / 3)
    assert found["nngp_error"] == pytest.approx(float((nngp(net, w, x) - true).norm() / true.norm()))
    rate = how.rate / float(torch.linalg.eigvalsh(torch.tensor(exact.ntk))[-1]) * exact.nngp.trace() / 3
    after = {name: t.clone().requires_grad_() for name, t in w.items()}
    for _ in range(how.steps):  # the same training by torch.optim
        optimiser = torch.optim.SGD(after.values(), lr=rate)
        optimiser.zero_grad()
        (((net.forward(after, x) - y) ** 2).sum() / 2).backward()
        optimiser.step()
    after = {name: t.detach() for name, t in after.items()}
    assert found["drift"] == pytest.approx(float((ntk(net, after, x) - theta).norm() / theta.norm()))
    squares = {name: (float((after[name] - t).norm() ** 2), float(t.norm() ** 2)) for name, t in w.items()}
    assert found["layer"] == pytest.approx(max(a / b for a, b in squares.values()) ** 0.5)
    changed, whole = map(sum, zip(*squares.values(), strict=True))
    assert found["movement"] == pytest.approx((changed / whole) ** 0.5)
    assert found["loss_after"] < found["loss_before"]
    seed = finite.seed_of("FC", 3, 16, 0)
    again = lazy.laziness(lambda some: net.forward(some, x), w, y, seed, iterations=how.iterations)
    assert found["kappa"] == pytest.approx(again.kappa)
    assert found["kappa"] == pytest.approx(found["distance"] * found["second"] / found["first"] ** 2)
    untrained = finite.measure("FC", 3, 16, 1, loaded, exact, how)  # only one of the two networks is trained
    assert untrained["error"] and untrained["kappa"] is untrained["drift"] is None


def test_seeds_of_networks_differ():
    every = [(k, d, w, s) for k in ("V", "GAP", "FC") for d in (3, 4) for w in (8, 16) for s in (0, 1)]
    assert len({finite.seed_of(*one) for one in every}) == len(every)
    assert all(0 <= finite.seed_of(*one) < 2**63 for one in every)


def test_a_call_goes_on_where_another_was_stopped(toy, counted, monkeypatch, tmp_path):
    settings, run = toy
    whole = stage.converge(Run(tmp_path / "whole"), settings())
    # Narrow networks come first.
    assert len(counted) == 8 and [one[2] for one in counted] == [4] * 4 + [8] * 4
    counted.clear()
    measure = finite.measure

    def stopped(*arguments):
        if len(counted) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(finite, "measure", stopped)
        code, _, err = call("converge", tmp_path / "toy.yaml", "--output", run.path)
    assert code == 130 and "the same command goes on" in err and len(counted) == 3
    steps = []
    found = stage.converge(run, settings(), lambda *progress: steps.append(progress))
    assert len(counted) == 8 and steps == [(done, 8) for done in range(3, 9)]
    assert found["networks"] == whole["networks"] and found["slopes"] == whole["slopes"]
    stage.converge(run, settings())
    assert len(counted) == 8
    path = run.path / "converge" / "networks" / "V-3-8-1.json"
    before = path.read_text()
    for damage in ("", "[]", before.replace('"error": ', '"error": "x", "_": '), before[:-20]):
        path.write_text(damage)
        stage.converge(run, settings())
        assert path.read_text() == before
    del counted[8:]
    grown = stage.converge(
        run, settings("converge.widths=[4, 8, 16]", "converge.seeds=3", "converge.trained=2")
    )
    # Four earlier ones are now to be trained, too.
    assert len(grown["networks"]) == 18 and len(counted) == 8 + 10 + 4
    smaller = stage.converge(run, settings("converge.kinds=[FC]", "converge.memory=0.5"))
    assert len(counted) == 22 and {one["kind"] for one in smaller["networks"]} == {"FC"}


@pytest.mark.parametrize(
    "key, value",
    [
        ("width", 4),
        ("kind", "V"),
        ("seed", False),
        ("trained", 0),
        *(("error", value) for value in (1e308, True, 0, -1.0, float("nan"), None, 0.5)),
        pytest.param("error", 10**400, id="error-huge"),
        ("loss_after", "x"),
        ("asked", {}),
        ("sha256", "0" * 64),
        ("sha256", None),  # as files of earlier versions
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_measured_anew(toy, counted, key, value):
    settings, run = toy
    few = settings("converge.kinds=[FC]", "converge.seeds=1")
    whole = stage.converge(run, few)
    path = run.path / "converge" / "networks" / "FC-3-8-0.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {key: value}))
    del counted[:]
    again = stage.converge(run, few)
    assert counted == [("FC", 3, 8, 0)] and path.read_text() == before
    for part in ("networks", "means", "slopes"):
        assert again[part] == whole[part]


def test_a_file_is_of_the_network_that_it_is_named_after(toy, counted):
    settings, run = toy
    whole = stage.converge(run, settings())
    folder = run.path / "converge" / "networks"
    before = (folder / "FC-3-8-0.json").read_bytes()
    del counted[:]
    for other in ("FC-3-4-0", "V-3-8-0", "FC-3-8-1"):
        (folder / "FC-3-8-0.json").write_bytes((folder / f"{other}.json").read_bytes())
        assert stage.converge(run, settings())["networks"] == whole["networks"]
        assert (folder / "FC-3-8-0.json").read_bytes() == before
    assert counted == [("FC", 3, 8, 0)] * 3


def test_files_of_an_earlier_version_with_other_settings_are_not_written_over(toy):
    settings, run = toy
    stage.converge(run, settings())
    for path in (run.path / "converge" / "networks").iterdir():
        item = json.loads(path.read_text())
        item.pop("sha256", None)
        path.write_text(json.dumps(item))
    before = path.read_text()
    with pytest.raises(UserError, match="converge.steps=2, not 3: use another --output"):
        stage.converge(run, settings("converge.steps=3"))
    assert path.read_text() == before


def test_notes_tell_what_was_measured_whatever_was_asked_last(toy):
    settings, run = toy
    training, kappa, of_each = "Training: 2 steps", "kappa = |f - y|", "At each width"

    def said(*overrides):
        return " ".join(report.notes(stage.converge(run, settings("converge.kinds=[FC]", *overrides))))

    none = said("converge.trained=0")
    assert all(words not in none for words in (training, kappa, of_each))
    one = said("converge.trained=1")
    assert "At each width, 1 network has all measures; the others have only the errors." in one
    assert training in one and kappa in one
    assert said("converge.trained=0") == one  # the networks are the same, so the note is, too
    wider = said("converge.widths=[4, 8, 16]", "converge.trained=0")
    assert "At each width, 0 to 1 networks have all measures" in wider and training in wider
    more = said("converge.seeds=3", "converge.trained=2")
    assert "At each width, 2 networks have all measures" in more
    for trained in (2, 1, 0):
        every = said("converge.seeds=2", f"converge.trained={trained}")
        assert of_each not in every and training in every and kappa in every


@pytest.mark.parametrize(
    "override, words",
    [
        ("converge.steps=3", "converge.steps=2, not 3: use another --output"),
        ("converge.dtype=float64", "converge.dtype=float32, not float64"),
        ("converge.images=4", "converge.images=3, not 4"),
        ("dataset.seed=1", "networks of other images"),
    ],
)
@pytest.mark.parametrize("trained", [0, 1])
def test_networks_of_other_settings_are_not_mixed(toy, trained, override, words):
    settings, run = toy
    stage.converge(run, settings("converge.kinds=[FC]", f"converge.trained={trained}"))
    with pytest.raises(UserError, match=words.replace(".", r"\.")):
        stage.converge(run, settings("converge.kinds=[FC]", override))


@pytest.mark.parametrize(
    "override, words",
    [
        ("converge.kinds=[W]", "expected a list of one or more of V, GAP and FC"),
        ("converge.kinds=[V, V]", "expected a list of one or more of V"),
        ("converge.kinds=[]", "expected a list of one or more of V"),
        ("converge.widths=[8]", "expected a list of two or more distinct integers"),
        ("converge.widths=[8, 8]", "expected a list of two or more distinct integers"),
        ("converge.widths=[8, 0]", "expected a list of two or more"),
        ("converge.depths=[1]", "expected a list of distinct integers of at least 2"),
        ("converge.rate=2.0", "expected a number above 0 and below 2"),
        ("converge.rate=.nan", "expected a number above 0"),
        ("converge.seeds=0", "expected the number of networks"),
        ("converge.steps=-1", "or 0 for no training"),
        ("converge.dtype=float16", "expected float32 or float64"),
        ("converge.memory=0", "a number above 0"),
        ("converge.beta=-1", "a number of at least 0"),
        ("converge.width=[8, 16]", "did you mean converge.widths?"),
    ],
)
def test_impossible_settings_are_told(toy, override, words):
    settings, _ = toy
    with pytest.raises(UserError) as told:
        settings(override)
    assert words in str(told.value) and f"--set {override}"[:20] in str(told.value)


def test_what_only_the_data_or_the_memory_show(toy, monkeypatch):
    settings, run = toy
    with pytest.raises(UserError, match="GAP trains neither its first nor its last layer: use at least 3"):
        settings("converge.kinds=[GAP]", "converge.depths=[2]")
    for override, words in (
        ("converge.outputs=11", "use at most 10, the number of classes"),
        (
            "converge.memory=1e-6",
            "memory of 1e-06 GiB is too little for a gradient at width 4: allow at least",
        ),
        ("converge.widths=[4, 100000]", "memory of 1 GiB is too little for a gradient at width 100000"),
        ("dataset.name=digit", "did you mean digits?"),
    ):
        with pytest.raises(UserError, match=words.replace("?", r"\?")):
            stage.converge(run, settings(override))
    large = settings("converge.widths=[4, 1048576]", "converge.memory=1048576")
    with pytest.raises(UserError, match=r"V at depth 3, width 1,048,576 needs .* for its weights, and"):
        stage.converge(run, large)
    assert not run.path.exists()  # these errors come before anything is measured

    def lacking(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(finite, "measure", lacking)
        with pytest.raises(UserError, match=r"V at depth 3, width 4 does not fit .*: use smaller converge"):
            stage.converge(run, settings())
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'cntk-bench\[torch\]'"):
        stage.converge(run, settings())


def test_a_folder_that_is_a_link_is_not_written_through(toy, tmp_path):
    settings, run = toy
    run.path.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (run.path / "converge").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        stage.converge(run, settings())


def test_the_command_from_end_to_end(toy, tmp_path):
    _, run = toy
    arguments = (
        "converge",
        tmp_path / "toy.yaml",
        "--output",
        run.path,
        "--set",
        "converge.kinds=[V, GAP, FC]",
    )
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    folder = run.path / "converge"
    names = ["converge.json", "converge.md", "converge.pdf", "converge.png", "converge.svg", "converge.txt"]
    assert sorted(path.name for path in folder.glob("converge.*")) == names
    assert out.startswith((folder / "converge.txt").read_text()) and str(folder) in out
    lines = [line.split() for line in out.splitlines()]
    assert ["NTK", "error"] == lines[2][4:6] and sum(line[:1] == ["GAP"] for line in lines) == 4
    found = json.loads((folder / "converge.json").read_text())
    assert found["made"]["stage"] == "converge" and found["made"]["settings"]["converge"]["seeds"] == 2
    assert len(found["networks"]) == 12 and len(found["means"]) == 6
    measures = {(s["kind"], s["measure"]) for s in found["slopes"]}
    every = {(kind, measure) for kind in ("V", "GAP", "FC") for measure in finite.MEASURES}
    assert measures == every - {("GAP", "kappa")}  # GAP is piecewise linear in its one trained layer
    first = found["means"][0]
    shown = f"{first['error']:.3g} +- {first['error_deviation']:.1g}"
    assert shown in out and shown in (folder / "converge.md").read_text()
    bits = {name: (folder / name).read_bytes() for name in names[1:]}
    assert call(*arguments)[0] == 0
    # A second call writes the same numbers, and so the same files.
    assert {name: (folder / name).read_bytes() for name in bits} == bits


def test_the_figure_shows_means_deviations_and_the_expected_slope():
    items = [item(w, s, error=(1 + s) / w**0.5, drift=1 / w) for w in (4, 16) for s in (0, 1)]
    how = {"steps": 1, "rate": 0.1, "iterations": 0, "seeds": 2, "trained": 2}
    for one in items:
        one |= {"movement": 1 / one["width"], "layer": one["width"] ** -0.5}
    result = {"name": "n", "data": {"name": "digits", "images": 3}, "made": {"settings": {"converge": how}}}
    result |= widths.gathered(items)
    drawn = report.figure(result)
    assert len(drawn.axes) == 4  # NNGP error and kappa were not measured
    axes = drawn.axes[0]
    line, _, (bars,) = axes.containers[0]
    np.testing.assert_allclose(line.get_xydata(), [[4, 0.75], [16, 0.375]])
    deviation = np.std([0.5, 1], ddof=1)
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [0.75 - deviation, 0.75 + deviation])
    grey = [line for line in axes.lines if line.get_color() == "0.55"]
    np.testing.assert_allclose(grey[0].get_xydata(), [[4, 0.75], [16, 0.375]])
