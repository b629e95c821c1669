"""Runs on users' own images: they grow, share tiles and have draws, and say what a reader needs to know."""

import shutil

import numpy as np
import pytest
import yaml
from PIL import Image
from test_cli import call

from cntk_bench.analyses import findings
from cntk_bench.config import config
from cntk_bench.errors import UserError
from cntk_bench.grams import matrix, store
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.report import notes
from cntk_bench.runs import compute as computing
from cntk_bench.runs import images
from cntk_bench.runs import solve as solving
from cntk_bench.runs import verify as verifying

CONFIG = """
name: own
dataset: {{name: folder, path: {path}, size: 6, train: 16, test: 8}}
kernel: {{columns: [CNTK-V], depths: [3]}}
compute: {{tile: 8, backend: cpu}}
"""
CLASSES = ("ant", "bee", "wasp")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("own") / "photos", np.random.default_rng(0)
    for part, n in (("train", 12), ("test", 4)):
        for c, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for number in range(n):
                x = rng.integers(0, 128, (9, 7 + number, 3), dtype=np.uint8)
                x[:, :, c] += 100
                Image.fromarray(x).save(folder / part / name / f"{number}.png")
    return folder


def settings(folder, path, *overrides):
    (folder / "own.yaml").write_text(CONFIG.format(path=path))
    return config.load(folder / "own.yaml", overrides)


def computed(folder, asked, donor=None, run="run"):
    """Compute; returns the run and the number of tiles computed."""
    run, tasks = Run(folder / run), []
    computing.compute(run, asked, lambda plan, todo: tasks.append, donor)
    return run, len(tasks)


def whole(run):
    grams = store.open(run.gram)
    return {part: matrix.matrix(grams, part, grams.readouts[0], np.float32) for part in ("train", "test")}


def test_a_run_on_a_folder_of_pictures(photos, tmp_path):
    run, tasks = computed(tmp_path, settings(tmp_path, photos))
    assert tasks
    moved = photos.with_name("moved")
    photos.rename(moved)  # solving needs no pictures
    try:
        solving.solve(run, run.config())
    finally:
        moved.rename(photos)
    found = record.load(run.record)
    assert found["solutions"][0]["accuracy"] > 90
    facts = found["data"]
    assert facts["name"] == "folder" and facts["class_names"] == list(CLASSES) and facts["classes"] == 3
    assert (facts["size"], facts["fit"]) == (6, "crop") and "channels" not in facts
    assert found["stages"][0]["versions"]["pillow"]
    assert verifying.verify(run, run.config(), 4, False).ok

    more, again = computed(tmp_path, settings(tmp_path, photos, "dataset.train=24"))
    assert (
        again and again < computed(tmp_path, settings(tmp_path, photos, "dataset.train=24"), run="fresh")[1]
    )
    for part, expected in whole(Run(tmp_path / "fresh")).items():
        assert np.array_equal(whole(more)[part], expected)


def test_another_directory_takes_the_tiles_of_the_same_pictures(photos, tmp_path):
    donor, _ = computed(tmp_path, settings(tmp_path, photos), run="donor")
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    other, _ = computed(tmp_path, settings(tmp_path, copy), donor=donor, run="other")
    grams = store.open(other.gram)
    assert grams.progress.counts().taken == grams.plan.count
    for part, expected in whole(donor).items():
        assert np.array_equal(whole(other)[part], expected)


def test_changed_pictures_are_noticed(photos, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    asked = settings(tmp_path, copy)
    run, _ = computed(tmp_path, asked)
    for file in (copy / "train" / "bee").iterdir():
        Image.open(file).rotate(180).save(file)
    with pytest.raises(UserError, match="images"):
        computed(tmp_path, asked)
    for change, words in (("size=5", "size"), ("fit=stretch", "fit"), ("channels=1", "training images are")):
        with pytest.raises(UserError, match=f"holds another computation: .*{words}"):
            computed(tmp_path, settings(tmp_path, photos, f"dataset.{change}"), run="run")


def test_draws_of_own_pictures(photos, tmp_path):
    asked = settings(tmp_path, photos, "dataset.train=9", "dataset.draws=3")
    run, _ = computed(tmp_path, asked)
    solving.solve(run, run.config())
    facts = record.load(run.record)["data"]
    assert facts["draws"] == 3 and len(set(facts["images_of_draws"])) == 3
    assert len(set(facts["train_index"].split())) == 27


def test_classes_by_name_are_told_by_name(photos, tmp_path):
    named = settings(tmp_path, photos, "dataset.classes=[wasp, ant]", "dataset.train=8")
    numbers = settings(tmp_path, photos, "dataset.classes=[2, 0]", "dataset.train=8")
    run, _ = computed(tmp_path, named)
    solving.solve(run, run.config())
    found = record.load(run.record)
    assert found["data"]["classes_used"] == [2, 0] and found["data"]["class_names"] == ["wasp", "ant"]
    assert "(classes wasp, ant)" in notes.title(found)
    assert computed(tmp_path, numbers)[1] == 0  # numbers choose the same images as names


def test_tables_and_mapped_arrays_and_text_in_runs(photos, tmp_path, monkeypatch):
    files = sorted(photos.rglob("*.png"))
    rows = [f"{f.relative_to(photos)},{f.parent.name},{f.parent.parent.name}" for f in files]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    monkeypatch.chdir(tmp_path)
    run, _ = computed(tmp_path, settings(tmp_path, photos, "dataset.labels=labels.csv"))
    kept = yaml.safe_load((run.path / "config.yaml").read_text())["dataset"]
    assert kept["labels"] == str(tmp_path / "labels.csv")  # valid from any working directory
    loaded = images.load(settings(tmp_path, photos, "dataset.train=null"))
    (tmp_path / "arrays").mkdir()
    for part in ("train", "test"):
        y = getattr(loaded, f"y_{part}")
        np.save(tmp_path / "arrays" / f"x_{part}.npy", getattr(loaded, f"x_{part}"))
        np.save(tmp_path / "arrays" / f"y_{part}.npy", np.array(CLASSES)[y])
    mapped = ("dataset.name=npy", "dataset.path=arrays", "dataset.size=null", "dataset.preprocess=none")
    run, _ = computed(tmp_path, settings(tmp_path, photos, *mapped), run="mapped")
    assert record.load(run.record)["data"]["class_names"] == list(CLASSES)
    assert computed(tmp_path, settings(tmp_path, photos, *mapped, "dataset.train=20"), run="mapped")[1]


def labelled(path, seed):
    """Write images that are the same for every seed; a quarter of the labels depends on it."""
    rng = np.random.default_rng(0)
    arrays = {
        f"x_{part}": rng.integers(0, 255, (n, 4, 4), np.uint8) for part, n in (("train", 30), ("test", 40))
    }
    for part, n in (("train", 30), ("test", 40)):
        y = np.arange(n) % 3
        y[::4] = (y[::4] + seed) % 3
        arrays[f"y_{part}"] = y
    np.savez(path, **arrays)


ARRAYS = ("dataset.name=npz", "dataset.size=null", "dataset.train=30", "dataset.test=40")


def test_other_labels_in_the_balanced_order_are_refused_with_the_reason(tmp_path):
    for seed in (0, 1):
        labelled(tmp_path / f"{seed}.npz", seed)
    run, _ = computed(tmp_path, settings(tmp_path, tmp_path / "0.npz", *ARRAYS))
    with pytest.raises(UserError, match="the same in another order, which their labels decide"):
        solving.solve(run, run.config([f"dataset.path={tmp_path / '1.npz'}"]))


def test_pictures_of_other_test_images_are_not_shown_as_mistakes(tmp_path):
    """They have the same indices and labels; the record's digest tells."""
    labelled(tmp_path / "d.npz", 0)
    asked = settings(tmp_path, tmp_path / "d.npz", *ARRAYS)
    loaded = images.load(asked)
    facts = images.record_facts(asked, loaded, images.image_facts(loaded))
    findings._pixels(asked, facts, loaded.y_test)
    arrays = dict(np.load(tmp_path / "d.npz"))
    np.savez(tmp_path / "d.npz", **arrays | {"x_test": 255 - arrays["x_test"]})
    with pytest.raises(UserError, match="other test images than this solve"):
        findings._pixels(asked, facts, loaded.y_test)


def test_test_images_that_are_training_images_are_counted(tmp_path):
    labelled(tmp_path / "d.npz", 0)
    arrays = dict(np.load(tmp_path / "d.npz"))
    for many in (0, 10):
        arrays["x_test"][:many] = arrays["x_train"][:many]
        np.savez(tmp_path / "d.npz", **arrays)
        asked = settings(tmp_path, tmp_path / "d.npz", *ARRAYS)
        loaded = images.load(asked)
        facts = images.record_facts(asked, loaded, images.image_facts(loaded))
        assert facts.get("repeated_test_images", 0) == many


@pytest.mark.parametrize("train", [30, 20])
def test_a_solve_on_other_labels_of_the_same_images_is_of_those(tmp_path, train):
    """The Gram matrices do not depend on the labels; the accuracy and the record do."""
    for seed in (0, 1):
        labelled(tmp_path / f"{seed}.npz", seed)
    own = (
        "dataset.name=npz",
        "dataset.size=null",
        "dataset.order=random",
        "dataset.train=30",
        "dataset.test=40",
    )
    asked = [settings(tmp_path, tmp_path / f"{seed}.npz", *own) for seed in (0, 1)]
    runs = [computed(tmp_path, one, run=f"run{seed}")[0] for seed, one in enumerate(asked)]
    fewer = f"dataset.train={train}"
    for run in runs:
        solving.solve(run, run.config([fewer]))
    first, right = (solving.solved(run)["solutions"][0] for run in runs)
    assert first["loo_error"] != right["loo_error"]
    solving.solve(runs[0], runs[0].config([fewer, f"dataset.path={tmp_path / '1.npz'}"]))
    found = solving.solved(runs[0])
    for key in ("accuracy", "loo_error"):
        assert found["solutions"][0][key] == right[key]
    assert found["data"]["fingerprint"] == solving.solved(runs[1])["data"]["fingerprint"]
    solving.solve(runs[0], runs[0].config([fewer]))  # the run's own labels still give their numbers
    assert solving.solved(runs[0])["solutions"][0]["loo_error"] == first["loo_error"]


# The YAML


KEYS = [
    "{name: folder, path: p, size: 32, fit: pad, channels: 1, test_share: 0.25}",
    "{name: folder, path: p, labels: t/labels.csv, channels: 3}",
    "{name: npz, path: p.npz, classes: [cat, dog]}",
    "{name: npz, path: p.npz, classes: ['3', 5]}",
    "{name: Fashion MNIST}",
    "{name: CIFAR-10, classes: [cat, 猫]}",
]


@pytest.mark.parametrize("text", KEYS)
def test_dumping_loses_nothing(tmp_path, text):
    (tmp_path / "a.yaml").write_text(f"dataset: {text}")
    found = config.load(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(config.dump(found))
    assert config.load(tmp_path / "a.yaml") == found


def test_the_canonical_name_is_kept(tmp_path):
    for given, kept in (("CIFAR-10", "cifar10"), ("Fashion MNIST", "fashion-mnist"), ("nothing", "nothing")):
        (tmp_path / "a.yaml").write_text(f"dataset: {{name: {given}}}")
        # Perhaps kept on another machine, so any name is accepted.
        found = config.load(tmp_path / "a.yaml", kept=True)
        assert found.dataset.name == kept and f"name: {kept}\n" in config.dump(found)


REFUSED = {
    "size: 0": "dataset.size is 0: expected the side of square images in pixels",
    "size: 5000": "dataset.size is 5000: use at most 4,096",
    "size: big": "dataset.size is 'big': expected the side",
    "fit: fill": "dataset.fit is 'fill': expected crop, pad or stretch",
    "channels: 2": "dataset.channels is 2: expected 1 for grey levels, 3 for RGB, or null",
    "channels: true": "dataset.channels is true: expected 1 for grey",
    "test_share: 1": "dataset.test_share is 1: expected a number between 0 and 1",
    "test_share: 0.0": "dataset.test_share is 0.0: expected a number between",
    "labels: 3": "dataset.labels is 3: expected a table of files and labels",
    "labels: ''": "dataset.labels is '': it is empty",
    "classes: [cat]": "expected a list of at least two different labels or names",
    "classes: [cat, cat]": "expected a list of at least two different labels or names",
    "classes: [cat, -1]": "expected a list of at least two different labels or names",
    "classes: [cat, 0.5]": "expected a list of at least two different labels or names",
    "classes: [cat, true]": "expected a list of at least two different labels or names",
    "classes: [cat, '']": "expected a list of at least two different labels or names",
    "lables: a.csv": "unknown key dataset.lables: did you mean dataset.labels?",
}


@pytest.mark.parametrize("text, words", REFUSED.items(), ids=REFUSED.keys())
def test_keys_that_cannot_be(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(f"dataset: {{{text}}}")
    with pytest.raises(UserError) as caught:
        config.load(tmp_path / "a.yaml")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_line_knows_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, code, words in (
        (["info"], 0, "npy, folder, cifar10"),
        (["fetch", "Folder"], 0, "Folder needs no download"),
        (["fetch", "CIFRA-10"], 2, "did you mean cifar10?"),
    ):
        done = call(*arguments)
        assert done.returncode == code and words in done.stdout + done.stderr
