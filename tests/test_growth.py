"""Runs that grow: only what is new is computed, earlier results stay, and the smaller run is a view."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from cntk_bench import open_run
from cntk_bench.config import config
from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams import growth, image_facts, matrix, missing, store
from cntk_bench.grams.tiles import Plan
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.runs import images, stored
from cntk_bench.runs import solve as solving
from cntk_bench.runs import verify as verifying
from cntk_bench.runs.status import Follower

CONFIG = """
name: small
dataset: {name: digits, train: 40, test: 20}
kernel: {columns: [CNTK-V, CNTK-GAP], depths: [3, 5]}
compute: {tile: 16, backend: cpu}
"""


def settings(folder, *overrides):
    (folder / "small.yaml").write_text(CONFIG)
    return config.load(folder / "small.yaml", overrides)


def computed(folder, *overrides, donor=None, run="run"):
    """Compute; returns the run and the computed tiles."""
    run, tasks = Run(folder / run), []
    computing.compute(run, settings(folder, *overrides), lambda plan, todo: tasks.append, donor)
    return run, tasks


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grown")
    run, _ = computed(folder)
    solving.solve(run, run.config())
    return run.path


@pytest.fixture
def run(finished, tmp_path):
    return Run(shutil.copytree(finished, tmp_path / "run"))


def matrices(run, sizes=None):
    grams = store.open(run.gram)
    return {
        (name, part): matrix.matrix(grams, part, name, np.float32, sizes=sizes)
        for name in grams.readouts
        for part in ("train", "test")
    }


def tiles(tasks):
    return {str(task.tile) for task in tasks}


def test_more_images_compute_the_difference(run, tmp_path):
    """Of 40 images in tiles of 16, 16 and 8, the last tiles are computed again, as whole ones."""
    _, tasks = computed(tmp_path, "dataset.train=60", "dataset.test=20")
    assert tiles(tasks) == {
        *(f"train-2-{col}" for col in range(3)),
        *(f"train-3-{col}" for col in range(4)),
        *(f"test-{row}-{col}" for row in range(2) for col in (2, 3)),
    }
    (tmp_path / "fresh").mkdir()
    fresh, _ = computed(tmp_path / "fresh", "dataset.train=60")
    for key, whole in matrices(fresh).items():
        np.testing.assert_array_equal(matrices(run)[key], whole)
    assert verifying.verify(run, run.config(), 10, False).ok
    assert computed(tmp_path, "dataset.train=60")[1] == []


def test_a_store_that_was_enlarged_meanwhile_is_not_called_damaged(run, tmp_path):
    """A reader of 40 images looks for 8 rows of the last tile, and finds the digest of its 16."""
    reader = store.open(run.gram)
    last = reader.plan.tiles("train")[-1]
    whole = reader.read(last)
    computed(tmp_path, "dataset.train=60")
    np.testing.assert_array_equal(reader.read(last), whole)  # by the digest that it knows
    reader.progress.refresh()
    with pytest.raises(UserError, match="changed by another process meanwhile: run the same command again"):
        reader.read(last)
    np.testing.assert_array_equal(store.open(run.gram).read(last)[:, :8, :8], whole)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("dataset.train=60", "dataset.test=30"),
        ("dataset.train=30", "dataset.test=10"),
        ("dataset.train=30", "dataset.test=25", "kernel.depths=[5,6]"),
        ("dataset.train=60", "kernel.columns=[CNN-GP-V,CNTK-V]"),
        ("dataset.train=20", "dataset.draws=3"),
    ],
)
def test_what_remains_is_what_compute_then_computes(run, tmp_path, overrides):
    """Before and after some tiles were lost; asking changes nothing."""
    asked = settings(tmp_path, *overrides)
    loaded = images.load(asked)
    spec = stored.spec_of(asked, loaded)
    plan = stored.cut(spec, asked, loaded, "cpu", run)
    held = store.open(run.gram)
    with held.alone():
        for tile in held.plan.tiles()[1::4]:
            held.discard(tile)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    found = stored.remaining(run, plan, spec, asked, loaded, "cpu")
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    foreseen = {
        (str(found.plan.tile_at(part, number)), frozenset(str(spec.readouts[place]) for place in places))
        for places, parts in found.tiles.items()
        for part, numbers in parts.items()
        for number in numbers.tolist()
    }
    _, tasks = computed(tmp_path, *overrides)
    target = store.open(run.gram)
    assert found.plan == target.plan and tasks
    assert foreseen == {(str(t.tile), frozenset(target.readouts[r] for r in t.readouts)) for t in tasks}
    assert found.count == len(tasks) and found.chunks == sum(len(task.readouts) for task in tasks)
    pairs = sum(task.tile.pairs(target.plan) for task in tasks)
    assert sum(found.computed(places, 1) for places in found.tiles) == pairs
    left = stored.remaining(run, plan, spec, asked, loaded, "cpu")
    assert left.count == left.pairs == left.bytes == 0 and dict(left.tiles) == {}


def test_of_a_new_run_everything_remains(tmp_path):
    for plan in (Plan(40, 20, 16, 2), Plan(40, 0, 16, 1), Plan(60, 7, 8, 3, 3)):
        found = missing.whole(plan)
        (places,) = found.tiles
        assert places == tuple(range(plan.readouts))
        assert (found.count, found.pairs, found.bytes) == (plan.count, plan.pairs, plan.bytes)
        assert all(found.computed(places, together) == plan.computed(together) for together in (1, 16))


def test_the_smaller_run_is_a_view_of_the_larger_one(run, tmp_path):
    before = matrices(run), solving.solved(run)
    computed(tmp_path, "dataset.train=60")
    for key, values in matrices(run, (40, 20)).items():
        np.testing.assert_array_equal(values, before[0][key])
    assert record.load(run.record)["solutions"] == []  # solutions for other images are no longer the run's
    again = solving.solve(run, run.config(("dataset.train=40",)))
    assert [s["accuracy"] for s in again["solutions"]] == [s["accuracy"] for s in before[1]["solutions"]]
    assert again["data"] == before[1]["data"] and again["computed"]["n_train"] == 60
    assert solving.solved(run)["data"]["n_train"] == 40
    assert solving.solve(run, run.config())["data"]["n_train"] == 60
    assert computed(tmp_path)[1] == []  # the old config finds everything there


def test_a_part_that_was_not_computed_is_refused(run):
    for wrong, words in (
        ("dataset.train=41", "has 40 training and 20 test images, not 41 and 20: run `compute` for more"),
        ("kernel.depths=[4]", "does not hold the readout ntk-v-4-all"),
    ):
        with pytest.raises(UserError, match=words):
            solving.solve(run, run.config((wrong,)))


@pytest.mark.parametrize(
    ("override", "count"),
    [
        ("kernel.depths=[3,5,7]", 12),
        ("kernel.columns=[CNTK-V,CNTK-GAP,CNN-GP-GAP]", 12),
        ("kernel.depths=[5]", 0),
    ],
)
def test_more_columns_and_depths_compute_only_those(run, tmp_path, override, count):
    before = matrices(run)
    _, tasks = computed(tmp_path, override)
    assert len(tasks) == count
    held = store.open(run.gram).readouts
    assert held[:4] == tuple(dict.fromkeys(name for name, _ in before))
    assert {held[r] for task in tasks for r in task.readouts} == set(held[4:])
    for key, values in before.items():
        np.testing.assert_array_equal(matrices(run)[key], values)
    assert verifying.verify(run, run.config(), 10, False).ok
    assert len(solving.solve(run, run.config())["solutions"]) == len(run.config().kernel.cells)


def test_a_grown_tile_whose_other_readouts_are_older_is_right(run, tmp_path):
    """With more images but fewer columns, the last tiles have V for 60 images and GAP for 40."""
    computed(tmp_path, "dataset.train=60", "kernel.columns=[CNTK-V]")
    found = verifying.verify(run, run.config(), 10**6, False)
    assert found.ok and found.missing > 0
    with pytest.raises(UserError, match="not computed yet for ntk-gap-3-hidden: run `compute`"):
        matrix.require_done(store.open(run.gram), "ntk-gap-3-hidden")
    assert computed(tmp_path)[1] == []  # GAP for 40 images is still there
    assert np.isfinite(matrices(run, (40, 20))["ntk-gap-5-hidden", "train"]).all()


def test_an_interrupted_growth_is_only_a_larger_array(run, tmp_path, monkeypatch):
    """The group's attributes, which decide, are written last."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(growth, "write_atomic", stop)
        with pytest.raises(KeyboardInterrupt):
            computed(tmp_path, "dataset.train=60", "kernel.depths=[3,5,7]")
    again = store.open(run.gram)
    assert again.sizes == (40, 20) and len(again.readouts) == 4 and again.progress.missing() == []
    assert solving.solve(run, run.config())["solutions"]
    _, tasks = computed(tmp_path, "dataset.train=60", "kernel.depths=[3,5,7]")
    assert tasks and verifying.verify(run, run.config(), 20, False).ok


def test_what_differs_is_told_in_words(run, tmp_path):
    for wrong, words in {
        "dataset.seed=3": "its training images are others .seed is 0 there, 3 here.",
        "preprocess.statistics=subset": "preprocess.statistics is full there, subset here",
        "dataset.preprocess=none": "preprocess is standardize there, none here",
        "dataset.classes=[0, 1]": "classes is all there, 0, 1 here",
        "compute.tile=8": "tile is 16 there, 8 here",
    }.items():
        with pytest.raises(UserError, match=words) as error:
            computed(tmp_path, wrong)
        assert "another output directory" in str(error.value) and "--from" in str(error.value)


# Taking tiles from another run


def test_from_another_run_computes_the_difference(run, tmp_path):
    (tmp_path / "new").mkdir()
    new, tasks = computed(tmp_path / "new", "dataset.train=60", donor=run)
    grams = store.open(new.gram)
    whole_there = {"train-0-0", "train-1-0", "train-1-1", *(f"test-{i}-{j}" for i in (0, 1) for j in (0, 1))}
    counts = Follower(new).look().counts
    assert len(tasks) == grams.plan.count
    assert (counts.tiles, counts.all_tiles, counts.taken, counts.in_part) == (18, 18, len(whole_there), 0)
    stage = record.load(new.record)["stages"][-1]
    assert stage["tiles_taken"] == 7 and stage["taken_from"] == str(run.path)
    (tmp_path / "fresh").mkdir()
    fresh, _ = computed(tmp_path / "fresh", "dataset.train=60")
    for key, whole in matrices(fresh).items():
        np.testing.assert_array_equal(matrices(new)[key], whole)


def test_a_subset_is_taken_whole(run, tmp_path):
    (tmp_path / "new").mkdir()
    new, _ = computed(tmp_path / "new", "dataset.train=25", "dataset.test=7", "kernel.depths=[5]", donor=run)
    grams = store.open(new.gram)
    assert grams.progress.counts().taken == grams.plan.count and grams.plan.tile == 16
    for (name, part), values in matrices(new).items():
        np.testing.assert_array_equal(values, matrices(run, (25, 7))[name, part])


def test_other_tiles_are_gathered_from_those_that_are_there(run, tmp_path):
    (tmp_path / "new").mkdir()
    new, _ = computed(tmp_path / "new", "compute.tile=7", donor=run)
    grams = store.open(new.gram)
    assert grams.plan.tile == 7 and grams.progress.counts().taken == grams.plan.count
    for key, values in matrices(run).items():
        np.testing.assert_array_equal(matrices(new)[key], values)


def test_damaged_tiles_are_not_taken(run, tmp_path):
    (run.gram / "train" / "c.0.1.0").write_bytes(b"damaged")
    (tmp_path / "new").mkdir()
    new, _ = computed(tmp_path / "new", donor=run)
    counts = store.open(new.gram).progress.counts()
    assert (counts.taken, counts.in_part) == (11, 1)  # in part: its other readouts are sound
    assert verifying.verify(new, new.config(), 10, False).ok


@pytest.mark.parametrize(
    ("override", "readouts"),
    [
        ("kernel.depths=[3,5,7]", {"ntk-v-7-all", "ntk-gap-7-hidden"}),
        ("kernel.columns=[CNTK-V,CNTK-GAP,CNN-GP-V]", {"nngp-v-3", "nngp-v-5"}),
        ("kernel.columns=[CNTK-V,CNN-GP-V]", {"nngp-v-3", "nngp-v-5"}),
    ],
)
def test_what_is_there_of_other_columns_and_depths_is_taken(run, tmp_path, caplog, override, readouts):
    """The rest is computed in one go; for each part, a line of the journal says so."""
    (tmp_path / "new").mkdir()
    with caplog.at_level("INFO"):
        new, _ = computed(tmp_path / "new", override, donor=run)
    grams, counts = store.open(new.gram), Follower(new).look().counts
    count = grams.plan.count
    assert f"{count} of these tiles are taken from {run.path}, {count} of them in part" in caplog.text
    assert (counts.tiles, counts.all_tiles, counts.taken, counts.in_part) == (count, count, 0, count)
    assert counts.computed == counts.pairs == grams.plan.pairs
    stage = record.load(new.record)["stages"][-1]
    assert stage["tiles_taken"] == count and stage["pairs"] == grams.plan.pairs
    (journal,) = (new.gram / "journals").iterdir()
    lines = [json.loads(line) for line in journal.read_text().split("\n") if line]
    said = {taken: [line for line in lines if line.get("taken", False) is taken] for taken in (True, False)}
    assert {grams.readouts[r] for line in said[False] for r in line["readouts"]} == readouts
    assert {grams.readouts[r] for line in said[True] for r in line["readouts"]} == {
        *grams.readouts
    } - readouts
    assert len(said[True]) == len(said[False]) == count
    there = matrices(run)
    for key, values in matrices(new).items():
        assert key[0] in readouts or np.array_equal(values, there[key])
        assert np.isfinite(values).all()
    assert verifying.verify(new, new.config(), 10, False).ok
    assert len(solving.solve(new, new.config())["solutions"]) == len(new.config().kernel.cells)


@pytest.mark.parametrize("override", ["kernel.columns=[CNN-GP-V]", "kernel.depths=[4]"])
def test_that_nothing_is_taken_is_a_warning(run, tmp_path, caplog, override):
    (tmp_path / "new").mkdir()
    new, _ = computed(tmp_path / "new", override, "dataset.test=3", donor=run)
    assert f"nothing can be taken from {run.path}: it has no finished tile of the columns" in caplog.text
    assert record.load(new.record)["stages"][-1]["tiles_taken"] == 0
    assert verifying.verify(new, new.config(), 2, False).ok


def test_what_is_taken_counts_in_no_rate(run, tmp_path):
    """Neither in the record's rate, nor in the status's, nor in the time left."""
    (tmp_path / "new").mkdir()
    new, _ = computed(tmp_path / "new", "dataset.train=60", donor=run)
    grams, status = store.open(new.gram), Follower(new).look()
    taken = sum(
        tile.pairs(grams.plan) for tile in grams.progress.done() if all(grams.progress.taken(tile, range(4)))
    )
    stage = record.load(new.record)["stages"][-1]
    assert stage["pairs"] == status.counts.computed == grams.plan.pairs - taken < status.counts.pairs
    (journal,) = (new.gram / "journals").iterdir()
    lines = [json.loads(line) for line in journal.read_text().split("\n") if line]
    seconds = sum(line["seconds"] for line in lines if not line.get("taken"))
    assert status.counts.seconds == pytest.approx(seconds)
    assert status.pairs_per_second == pytest.approx(stage["pairs"] / seconds)


def test_status_counts_what_was_asked_for_last(run, tmp_path):
    """A run takes everything, then grows, then asks for less: counts never exceed what was asked."""
    (tmp_path / "new").mkdir()
    computed(tmp_path / "new", donor=run)
    follower = Follower(Run(tmp_path / "new" / "run"))
    assert (follower.look().counts.taken, follower.look().counts.all_tiles) == (12, 12)
    new, _ = computed(tmp_path / "new", "dataset.train=60", "kernel.depths=[3,5,7]", donor=run)
    counts = follower.look().counts  # the follower sees that the run has grown
    assert (counts.tiles, counts.all_tiles, counts.taken, counts.in_part) == (18, 18, 0, 7)
    computed(tmp_path / "new", "dataset.train=25", "dataset.test=7", "kernel.depths=[5]")
    counts = follower.look().counts
    assert (counts.tiles, counts.all_tiles, counts.taken, counts.in_part) == (5, 5, 5, 0)


def test_nothing_to_take_is_told(run, tmp_path, monkeypatch):
    (tmp_path / "new").mkdir()
    with pytest.raises(UserError, match="it has none of these training images .preprocess is standardize"):
        computed(tmp_path / "new", "dataset.preprocess=none", donor=run)
    from cntk_bench.backends import cpu

    now = cpu.NUMERICS
    monkeypatch.setattr(cpu, "NUMERICS", now + 1)
    with pytest.raises(
        UserError, match=f"nothing can be taken from .*: numerics is {now} there, {now + 1} here"
    ):
        computed(tmp_path / "new", donor=run)
    assert not (tmp_path / "new" / "run").exists()


# Stores of format 1


def as_format_1(run):
    """Make a run look as version 0.1.0 left it: one log, digests of whole planes, none of images."""
    import hashlib

    grams = store.open(run.gram)
    lines = []
    for tile in grams.plan.tiles():
        digests = [hashlib.sha256(np.ascontiguousarray(plane).data).hexdigest() for plane in grams.read(tile)]
        lines.append(json.dumps({"tile": str(tile), "digests": digests, "seconds": 1.0, "time": 1.7e9}))
    (run.gram / "tiles.jsonl").write_text("".join(f"\n{line}\n" for line in lines))
    shutil.rmtree(run.gram / "journals")
    for name in ("train_image", "test_image"):
        shutil.rmtree(run.gram / name)
    group = json.loads((run.gram / "zarr.json").read_text())
    past = record.load(run.record)
    kept = {k: v for k, v in group["attributes"].items() if k not in ("about", "images")}
    fingerprint = past["computed"]["fingerprint"]
    group["attributes"] = kept | {"cntk_bench_format": 1, "data": fingerprint, "preprocess": "standardize"}
    (run.gram / "zarr.json").write_text(json.dumps(group))
    for facts in (past["data"], past["computed"]):
        facts.pop("images")
    past.pop("computed")
    (run.record).write_text(json.dumps(past))
    text = (run.path / "config.yaml").read_text()
    start = text.index("preprocess:\n")
    (run.path / "config.yaml").write_text(text[:start] + text[text.index("kernel:") :])


@pytest.mark.parametrize("first", [(), ("dataset.train=40",), ("dataset.train=20", "dataset.test=7")])
def test_a_run_of_format_1_opens_is_converted_and_grows(run, tmp_path, first):
    before = matrices(run)
    as_format_1(run)
    old = store.open(run.gram)
    assert old.progress.missing() == [] and old.progress.counts().seconds == old.plan.count
    assert solving.solve(run, run.config())["solutions"] and verifying.verify(run, run.config(), 5, False).ok
    with pytest.raises(UserError, match="training images are 40 there, 20 here.*run `compute` on it once"):
        solving.solve(run, run.config(("dataset.train=20",)))
    if first:
        assert computed(tmp_path, *first)[1] == []  # this converts it
        new = store.open(run.gram)
        assert new.attributes["cntk_bench_format"] == 2 and "data" not in new.attributes
    _, tasks = computed(tmp_path, "dataset.train=60")
    assert "train-1-1" not in tiles(tasks) and "train-2-2" in tiles(tasks)
    for key, values in matrices(run, (40, 20)).items():
        np.testing.assert_array_equal(values, before[key])
    assert verifying.verify(run, run.config(), 10, False).ok


def test_a_run_of_format_1_with_other_images_is_refused(run, tmp_path):
    as_format_1(run)
    for more in ((), ("dataset.train=60",)):
        with pytest.raises(UserError, match="its images are others .pixels, labels or preprocessing."):
            computed(tmp_path, "dataset.seed=5", *more)
    past = record.load(run.record)
    past["data"]["fingerprint"] = "0" * 64
    record.save(past, run.record)
    with pytest.raises(UserError, match="its images are not those that the run.s record"):
        solving.solve(run, run.config())


def test_a_run_of_format_1_is_taken_from_as_it_is(run, tmp_path):
    as_format_1(run)
    before = (run.gram / "zarr.json").read_bytes()
    (tmp_path / "new").mkdir()
    new, _ = computed(tmp_path / "new", "dataset.train=60", donor=run)
    assert store.open(new.gram).progress.counts().taken == 7
    assert (run.gram / "zarr.json").read_bytes() == before
    with pytest.raises(UserError, match="which an older version made, of other images"):
        computed(tmp_path / "new", "dataset.seed=5", donor=run, run="other")


def test_rounds_of_format_1_are_told_by_the_order(run):
    as_format_1(run)
    log = run.gram / "tiles.jsonl"
    first, *rest = log.read_text().strip().split("\n\n")
    back = json.dumps({"tile": "train-0-0", "digests": None})
    other = first.replace('"digests": ["', '"digests": ["00').replace('"seconds": 1.0', '"seconds": 2.0')
    for lines, tile_is in (
        ([other, *rest, back, first], "done"),
        ([first, *rest, back], "missing"),
        ([other, back, back, first, *rest], "done"),
    ):
        log.write_text("".join(f"\n{line}\n" for line in lines))
        progress = store.open(run.gram).progress
        assert [str(tile) for tile in progress.missing()] == ["train-0-0"] * (tile_is == "missing")
        assert progress.counts().seconds == progress.counts().all_tiles - (tile_is == "missing")
        assert progress.disputed == set()
        if tile_is == "done":
            assert np.isfinite(matrices(run)["ntk-v-3-all", "train"]).all()


# Matrices for other programs


def test_open_run_gives_whole_symmetric_matrices(run):
    opened = open_run(run.path)
    gram = opened.gram("CNTK-GAP", 5)
    assert opened.columns == run.config().kernel.cells
    assert gram.train.dtype == gram.test.dtype == np.float64 and (gram.train == gram.train.T).all()
    np.testing.assert_array_equal(gram.test, matrices(run)["ntk-gap-5-hidden", "test"])
    facts = record.load(run.record)["computed"]
    assert " ".join(map(str, gram.train_index)) == facts["train_index"]
    labels = store.open(run.gram).labels
    assert (gram.y_train == labels[0]).all() and (gram.y_test == labels[1]).all()
    with pytest.raises(UserError, match="does not hold the readout ntk-gap-4"):
        opened.gram("CNTK-GAP", 4)
    with pytest.raises(UserError, match="column 3 is not possible: give a name, such as 'CNTK-GAP'"):
        opened.gram(3, 3)


@pytest.mark.parametrize(
    ("readouts", "words"),
    [
        ((), "column own has no Gram matrix: choose a kernel column"),
        (("ntk-v-3-all", "ntk-gap-3-hidden"), r"has 2 Gram matrices \(ntk-v-3-all, ntk-gap-3-hidden\)"),
    ],
)
def test_a_column_without_a_matrix_of_its_own_is_told(run, monkeypatch, readouts, words):
    own = SimpleNamespace(name="own", needs=lambda depth: readouts)
    monkeypatch.setattr("cntk_bench.runs.access.find", lambda name: own)
    with pytest.raises(UserError, match=words):
        open_run(run.path).gram("own", 3)


def test_whoever_opens_the_arrays_by_hand_is_told_of_nan(run):
    import zarr

    group = zarr.open_group(run.gram, mode="r")
    assert np.isnan(group["train"][0, 0, 20]) and "are NaN" in group.attrs["about"]
    assert "cntk-bench export" in group.attrs["about"]


def test_labels_of_another_run_are_found_and_mended(run, tmp_path):
    (tmp_path / "other").mkdir()
    other, _ = computed(tmp_path / "other", "dataset.seed=1")
    shutil.copy(other.gram / "y_test" / "c" / "0", run.gram / "y_test" / "c" / "0")
    with pytest.raises(UserError, match="its images are not those that the run.s record"):
        solving.solve(run, run.config())
    with pytest.raises(VerificationError, match="labels .* are not those of the data"):
        verifying.verify(run, run.config(), 2, False)
    assert verifying.verify(run, run.config(), 2, True).ok
    assert solving.solve(run, run.config())["solutions"]


@pytest.fixture
def relabelled(tmp_path):
    """A solved run on a file whose labels were changed afterwards."""
    x, y = np.random.default_rng(0).random((40, 8, 8), np.float32), np.arange(40) % 4
    facts = {"x_train": x[:24], "y_train": y[:24], "x_test": x[24:], "y_test": y[24:]}
    np.savez(tmp_path / "data.npz", **facts)
    data = f"dataset={{name: npz, path: {tmp_path / 'data.npz'}, train: 24, test: 16}}"
    run, _ = computed(tmp_path, data, "kernel.columns=[CNTK-V]", "kernel.depths=[3]")
    solving.solve(run, run.config())
    np.savez(tmp_path / "data.npz", **facts | {"y_train": (y[:24] + 1) % 4})
    return run


@pytest.mark.parametrize("repair", [False, True])
def test_labels_of_data_that_changed_replace_none(relabelled, repair):
    before = store.open(relabelled.gram).labels
    with pytest.raises(UserError, match="the labels of npz are not those of which record.json and the Gram"):
        verifying.verify(relabelled, relabelled.config(), 2, repair)
    assert all(map(np.array_equal, before, store.open(relabelled.gram).labels))


@pytest.mark.parametrize("name", ["y_train", "test_image"])
def test_labels_of_data_that_changed_do_not_replace_damaged_ones(relabelled, name):
    run = relabelled
    (run.gram / name / "c" / "0").unlink()
    for repair in (False, True):
        with pytest.raises(UserError, match="are not those of which record.json tells.*give the same data"):
            verifying.verify(run, run.config(), 1, repair)


def test_a_solve_says_that_what_tells_images_is_damaged(run):
    (run.gram / "train_image" / "c" / "0").unlink()
    with pytest.raises(VerificationError, match="train_image or test_image in .* is damaged: run `compute`"):
        solving.solve(run, run.config())
    computed(run.path.parent)
    solving.solve(run, run.config())


def test_runs_of_two_sizes_that_begin_at_once_share_the_tiles_of_the_first(tmp_path, monkeypatch):
    """Each chooses the side of its tiles by its number of images, before there is a store."""
    make, asked = computing.make, "compute.tile=64"

    def late(run):
        monkeypatch.setattr(computing, "make", make)
        computed(tmp_path, asked, "dataset.train=70")
        make(run)

    monkeypatch.setattr(computing, "make", late)
    run, tasks = computed(tmp_path, asked)
    assert tasks == [] and store.open(run.gram).plan.tile == 64


def test_nothing_is_solved_with_labels_that_changed(relabelled):
    before = record.load(relabelled.record)["solutions"]
    # Uses the labels that the run was computed with.
    after = solving.solve(relabelled, relabelled.config())["solutions"]
    assert [one["accuracy"] for one in after] == [one["accuracy"] for one in before]
    with pytest.raises(UserError, match="the labels of npz are not those that .* was computed with"):
        solving.solve(relabelled, relabelled.config(("dataset.train=12",)))


def test_a_full_disk_takes_no_labels(run, monkeypatch):
    there = store.open(run.gram)
    known = there.images()
    more = image_facts.ImageFacts(
        *(tuple(np.r_[a, a] for a in getattr(known, name)) for name in image_facts.NAMES)
    )

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(there.group["y_train"]), "__setitem__", full)
        with pytest.raises(OSError):
            image_facts.write(there.group, more, there.path)
    kept = store.open(run.gram).images()
    for name in image_facts.NAMES:
        assert all(map(np.array_equal, getattr(known, name), getattr(kept, name)))


def test_a_tile_larger_than_the_data_lets_a_run_grow(tmp_path):
    for train in (20, 50, 70, 12):
        run, _ = computed(tmp_path, "compute.tile=64", f"dataset.train={train}", "dataset.test=10")
    assert store.open(run.gram).plan.tile == 20
    with pytest.raises(UserError, match="tile is 20 there, 32 here"):
        computed(tmp_path, "compute.tile=32", "dataset.train=80", "dataset.test=10")


def test_a_store_that_is_a_link_is_told_before_anything_changes(run, tmp_path):
    run.gram.rename(tmp_path / "scratch")
    run.gram.symlink_to(tmp_path / "scratch")
    solving.solve(run, run.config())
    with pytest.raises(UserError, match="is a link: put the folder itself there"):
        computed(tmp_path, "dataset.train=48")
    assert store.open(run.gram).plan.n_train == 40
    (tmp_path / "scratch").rename(tmp_path / "nowhere")
    (tmp_path / "scratch").mkdir()
    with pytest.raises(UserError, match="is a link: put the folder itself there"):
        computed(tmp_path)


@pytest.mark.parametrize("plant", ["file", "link"])
def test_something_else_in_the_place_of_facts_is_set_aside(run, tmp_path, plant):
    for name in ("y_train", "train_index"):
        shutil.rmtree(run.gram / name)
        if plant == "file":
            (run.gram / name).write_text("precious")
        else:
            (tmp_path / "victim").mkdir(exist_ok=True)
            (run.gram / name).symlink_to(tmp_path / "victim")
    assert computed(tmp_path)[1] == [] and verifying.verify(run, run.config(), 2, False).ok
    assert len(list(run.gram.glob("aside-*"))) == 2
    assert plant == "file" or list((tmp_path / "victim").iterdir()) == []
