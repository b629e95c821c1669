"""The store against plain arrays, and with every kind of damage."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams import chunks, growth, image_facts, journal, matrix
from cntk_bench.grams import store as stores
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.system import files

PLAN = Plan(n_train=7, n_test=5, tile=3, readouts=2)
ATTRIBUTES = {
    "readouts": ["ntk-v-3-all", "ntk-gap-3-hidden"],
    "backend": "cpu",
    "numerics": 1,
    "dtype": "float32",
    "images": {"data_set": "digits", "seed": 0},
    "data": "ab12",
}
LABELS = np.arange(7) % 3, np.arange(5) % 3
IMAGES = ImageFacts(LABELS, (np.arange(7) + 10, np.arange(5) + 20), (np.arange(7) + 100, np.arange(5) + 200))
RNG = np.random.default_rng(0)
TRAIN = RNG.random((2, 7, 7), np.float32)
TRAIN += TRAIN.transpose(0, 2, 1)
TEST = RNG.random((2, 5, 7), np.float32)


def block_of(tile):
    whole = TRAIN if tile.part == "train" else TEST
    return whole[:, tile.rows(PLAN), tile.cols(PLAN)]


def fill(store, tiles):
    with store.shared():
        for tile in tiles:
            store.write(tile, block_of(tile), 0.5)


@pytest.fixture
def empty(tmp_path):
    return growth.create(tmp_path / "run" / "gram.zarr", PLAN, ATTRIBUTES, IMAGES)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    store = growth.create(tmp_path_factory.mktemp("filled") / "gram.zarr", PLAN, ATTRIBUTES, IMAGES)
    fill(store, PLAN.tiles())
    return store.path


@pytest.fixture
def full(filled, tmp_path):
    return stores.open(shutil.copytree(filled, tmp_path / "gram.zarr"))


def chunk(store, tile, readout=0):
    return store.path / tile.part / f"c.{readout}.{tile.row}.{tile.col}"


def log_of(store):
    (log,) = (store.path / "journals").iterdir()
    return log


# Round trip


@pytest.mark.parametrize("readout", [0, 1])
def test_round_trip(full, readout):
    assert full.progress.missing() == []
    for dtype in (np.float32, np.float64):
        train, test = (
            matrix.matrix(full, "train", readout, dtype),
            matrix.matrix(full, "test", readout, dtype),
        )
        assert train.dtype == test.dtype == dtype
        assert (train == TRAIN[readout]).all() and (test == TEST[readout]).all()
    rows, blocks = zip(*matrix.row_blocks(full, readout), strict=True)
    assert rows == (slice(0, 3), slice(3, 5))
    assert (np.concatenate(blocks) == TEST[readout]).all()


def test_a_store_gives_its_matrices(full):
    assert (full.matrix("train", 0) == TRAIN[0]).all() and full.matrix("test", 1).dtype == np.float64
    assert (full.matrix("train", 0, np.float32, sizes=(2, 3)) == TRAIN[0][:2, :2]).all()
    for part in ("Train", "validation", None):
        with pytest.raises(UserError, match=f"part {part!r} is unknown: use 'train' or 'test'"):
            full.matrix(part, 0)


def test_tiles_and_records(full):
    again = stores.open(full.path)
    for tile in PLAN.tiles():
        assert (again.read(tile) == block_of(tile)).all()
        assert (again.read(tile, [1]) == block_of(tile)[1:]).all()
    assert again.progress.counts().seconds == 0.5 * PLAN.count
    assert again.plan == PLAN
    assert again.attributes["images"] == ATTRIBUTES["images"]
    assert all((a == b).all() for a, b in zip(again.labels, LABELS, strict=True))


def test_any_order_gives_the_same_chunks(full, tmp_path):
    other = growth.create(tmp_path / "other.zarr", PLAN, ATTRIBUTES, IMAGES)
    fill(other, RNG.permutation(np.array(PLAN.tiles(), object)))
    names = sorted(p.relative_to(full.path) for p in full.path.glob("t*/c.*"))
    assert names == sorted(p.relative_to(other.path) for p in other.path.glob("t*/c.*"))
    assert all((full.path / n).read_bytes() == (other.path / n).read_bytes() for n in names)


def test_only_half_of_train_is_written(full):
    array = zarr.open_group(full.path, mode="r")["train"][:]
    assert np.isnan(array[:, :3, 3:]).all()
    assert (array[:, 3:, :3] == TRAIN[:, 3:, :3]).all()


def test_bytes_of_the_plan(full):
    assert PLAN.bytes == sum(p.stat().st_size for p in full.path.glob("t*/c.*"))


def test_no_test_images(tmp_path):
    plan = Plan(4, 0, 3, 2)
    store = growth.create(tmp_path / "s", plan, ATTRIBUTES, ImageFacts((np.zeros(4, int), np.zeros(0, int))))
    with store.shared():
        for tile in plan.tiles():
            store.write(tile, TRAIN[:, tile.rows(plan), tile.cols(plan)])
    assert (matrix.matrix(store, "train", 0) == TRAIN[0, :4, :4]).all()
    assert matrix.matrix(store, "test", 0).shape == (0, 4)
    assert [y.size for y in store.labels] == [4, 0]


def test_unfinished(empty):
    fill(empty, PLAN.tiles()[:4])
    assert empty.progress.missing() == PLAN.tiles()[4:]
    with pytest.raises(UserError, match="tile train-2-[12] .* not computed yet: run `compute`$"):
        matrix.matrix(empty, "train", 0)
    with pytest.raises(UserError, match="8 of 12 tiles .* not computed yet for ntk-v-3-all: run `compute`$"):
        matrix.require_done(empty, "ntk-v-3-all")
    matrix.require_done(empty, "ntk-v-3-all", (6, 0))
    with pytest.raises(UserError, match="test-1-2 .* not computed yet: run `compute`$"):
        empty.read(Tile("test", 1, 2))


def test_wrong_shape_and_writing_without_the_lock(empty):
    tile = Tile("train", 2, 0)
    with pytest.raises(RuntimeError, match="lock"):
        empty.write(tile, block_of(tile))
    with empty.shared(), pytest.raises(ValueError, match=r"train-2-0 has shape \(1, 3\), not \(3, 3\)"):
        empty.write(tile, np.zeros((2, 3, 3), np.float32))


# Damage: never a traceback, never a wrong number, and repaired by writing again

TILE = Tile("train", 2, 1)  # a partial tile, 1 x 3


def flip(path):
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def consistent(path):
    """Another number with a correct checksum, which only the digest shows."""
    array = zarr.open_group(path.parents[1], mode="r+")[path.parent.name]
    array[1, TILE.rows(PLAN), TILE.cols(PLAN)] = 3.0


DAMAGES = {
    "flipped bit": flip,
    "truncated": truncate,
    "emptied": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "altered": consistent,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_chunk(full, damage):
    DAMAGES[damage](chunk(full, TILE, readout=1))
    reason = "missing or altered: the digest does not fit" if damage in ("missing", "altered") else ".*"
    remedy = "run `verify` with --repair"
    with pytest.raises(VerificationError, match=rf"tile train-2-1 of .* is damaged \({reason}\): {remedy}"):
        full.read(TILE)
    with pytest.raises(VerificationError, match="train-2-1"):
        matrix.matrix(full, "train", 1)
    assert (matrix.matrix(full, "train", 0) == TRAIN[0]).all()  # the chunks of the other readout are sound
    with full.alone():
        full.discard(TILE)
    assert stores.open(full.path).progress.missing() == [TILE]
    fill(full, [TILE])
    assert stores.open(full.path).progress.missing() == []
    assert (matrix.matrix(full, "train", 1) == TRAIN[1]).all()


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES, errno.ENOMEM, errno.ESTALE])
def test_a_chunk_that_cannot_be_read_now_is_not_called_damaged(full, monkeypatch, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(sys.modules["zarr.storage._local"], "_get", fail)
    with pytest.raises(stores.Unreadable) as error:
        full.inspect(TILE, 0)
    reason = f"cannot be read now ({os.strerror(code)})"
    one_line(error, "tile train-2-1 of", reason, "mend that and run the same command again")


def test_labels_that_cannot_be_read_now_are_not_called_damaged(full, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(sys.modules["zarr.storage._local"], "_get", fail)
    with pytest.raises(stores.Unreadable) as error:
        _ = full.labels
    reason = "cannot be read now (Input/output error)"
    one_line(error, "y_train of", reason, "mend that and run the same command again")


def test_a_reading_error_without_a_number_is_told_by_its_words(full, monkeypatch):
    def fail(*_):
        raise OSError("the library's words")

    monkeypatch.setattr(sys.modules["zarr.storage._local"], "_get", fail)
    with pytest.raises(stores.Unreadable, match=r"cannot be read now \(the library's words\)"):
        full.inspect(TILE, 0)


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (lambda path: path.symlink_to(path), "symbolic links"),
        (os.mkfifo, "something else has the place of a chunk"),
    ],
    ids=["loop", "fifo"],
)
def test_what_could_never_be_read_in_a_chunks_place_is_damage_and_is_mended(full, plant, fault):
    chunk(full, TILE).unlink()
    plant(chunk(full, TILE))
    block, told = full.inspect(TILE, 0)
    assert block is None and fault in told
    fill(full, [TILE])
    assert (stores.open(full.path).read(TILE) == block_of(TILE)).all()


def test_a_file_in_the_place_of_all_chunks_is_damage(full):
    shutil.rmtree(full.path / "train")
    (full.path / "train").write_text("")
    with pytest.raises(VerificationError, match="damaged .Not a directory.: run `verify` with --repair"):
        full.read(TILE)


def test_a_folder_or_a_link_in_a_chunks_place_is_damage_and_is_mended(full, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for readout, plant in ((0, lambda path: path.mkdir()), (1, lambda path: path.symlink_to(victim))):
        path = chunk(full, TILE, readout)
        path.unlink()
        plant(path)
        (path / "inside").write_text("kept") if path.is_dir() else None
    with pytest.raises(VerificationError, match="train-2-1 .* damaged"):
        full.read(TILE)
    fill(full, [TILE])
    assert (stores.open(full.path).read(TILE) == block_of(TILE)).all()
    assert victim.read_text() == "precious"
    assert [p.read_text() for p in full.path.glob("train/aside-*/inside")] == ["kept"]


def test_readouts_are_found_by_name(full):
    names = ATTRIBUTES["readouts"]
    for number, name in enumerate(names):
        assert (matrix.matrix(full, "train", name) == TRAIN[number]).all()
        assert (next(matrix.row_blocks(full, name))[1] == TEST[number, :3]).all()
    for readout in ("ntk-v-4-all", "ntk-v-3", 2, -1):
        with pytest.raises(
            UserError, match="does not hold the readout .*ntk-v-3-all, ntk-gap-3-hidden.*comput"
        ):
            matrix.matrix(full, "train", readout)


def test_the_lower_triangle_alone(full):
    lower = matrix.matrix(full, "train", 0, triangle="lower")
    assert (np.tril(lower) == np.tril(TRAIN[0])).all() and (lower[:3, 3:] == 0).all()


def test_the_images_used_are_kept(full, tmp_path):
    """Even if a store was first made without them."""
    bare = growth.create(tmp_path / "new", PLAN, ATTRIBUTES, ImageFacts(LABELS))
    assert bare.images().indices is bare.images().digests is None and bare.images().fingerprint is None
    for store in (full, growth.ensure(bare.path, PLAN, ATTRIBUTES, IMAGES)):
        for name in ("labels", "indices", "digests"):
            for found, kept in zip(getattr(store.images(), name), getattr(IMAGES, name), strict=True):
                np.testing.assert_array_equal(found, kept)
        assert store.images().fingerprint == IMAGES.fingerprint
    assert [len(y) for y in full.images((3, 2)).labels] == [3, 2]


def test_the_numerics_version_decides_and_the_source_does_not(tmp_path):
    """Stores older than numerics versions count as version 1, whatever their source."""
    old = {**ATTRIBUTES, "source": "0123"}
    del old["numerics"]
    growth.create(tmp_path / "old", PLAN, old, IMAGES)
    growth.ensure(tmp_path / "old", PLAN, {**ATTRIBUTES, "numerics": 1}, IMAGES)
    with pytest.raises(UserError, match="numerics is 1 there, 2 here"):
        growth.ensure(tmp_path / "old", PLAN, {**ATTRIBUTES, "numerics": 2}, IMAGES)


# Links, moves and stray files


@pytest.mark.parametrize("name", ["lock", "journals"])
def test_a_planted_link_is_refused(full, tmp_path, name):
    victim = tmp_path / "victim"
    if name == "lock":
        victim.write_text("precious")
        (full.path / name).unlink()
    else:
        victim.mkdir()
        (full.path / name).rename(tmp_path / "aside")
    (full.path / name).symlink_to(victim)
    with pytest.raises(UserError, match="not a plain file.*remove it|is a link: put the folder itself"):
        fill(full, [TILE])
    assert victim.read_text() == "precious" if name == "lock" else os.listdir(victim) == []


def test_arrays_that_are_links_are_refused(full, tmp_path):
    (full.path / "train").rename(tmp_path / "elsewhere")
    (full.path / "train").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="train is a link: put the folder itself there"):
        stores.open(full.path)


@pytest.mark.parametrize("moment", ["before the tile", "before its line"])
@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_store_moved_while_it_is_written(empty, tmp_path, monkeypatch, how, moment):
    """What the log lists is there, wherever the store is now; the same command begins or goes on."""
    first, second = PLAN.tiles()[:2]

    def disturb():
        if how == "removed":
            shutil.rmtree(empty.path)
        else:
            empty.path.rename(tmp_path / "moved.zarr")
        if how == "replaced":
            growth.create(empty.path, PLAN, ATTRIBUTES, IMAGES)

    with empty.shared():
        empty.write(first, block_of(first))
        if moment == "before the tile":
            disturb()
        else:
            append = empty._journal.append
            monkeypatch.setattr(empty._journal, "append", lambda *args: (disturb(), append(*args)))
        words = (
            "was moved, removed or replaced while it was written: run the same command again; what was fin"
        )
        with pytest.raises(UserError, match=words):
            empty.write(second, block_of(second))
    if how != "removed":
        moved = stores.open(tmp_path / "moved.zarr")
        assert moved.progress.done() == [first] and (moved.read(first) == block_of(first)).all()
    again = growth.ensure(empty.path, PLAN, ATTRIBUTES, IMAGES)
    fill(again, again.progress.missing())
    assert (matrix.matrix(stores.open(empty.path), "train", 0) == TRAIN[0]).all()


def test_names_that_do_not_fit_the_plan_make_no_store(tmp_path):
    with pytest.raises(ValueError, match="1 readouts do not fit the plan's 2"):
        growth.create(tmp_path / "s", PLAN, {**ATTRIBUTES, "readouts": ["ntk-v-3-all"]}, IMAGES)
    assert os.listdir(tmp_path) == []


def test_stray_chunks_are_set_aside_and_anything_else_is_not_touched(tmp_path, caplog):
    path = tmp_path / "gram.zarr"
    (path / "train").mkdir(parents=True)
    (path / "train" / "c.0.1.0").write_text("stray")
    fill(growth.ensure(path, PLAN, ATTRIBUTES, IMAGES), PLAN.tiles())
    (aside,) = tmp_path.glob("gram.zarr-stray-*")
    assert [p.read_text() for p in aside.glob("train/*")] == ["stray"]
    assert f"held chunks without a store: they are in {aside.name} now" in caplog.text


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_torn_record(empty, cut):
    """A line without its end does not count; it hides neither earlier lines nor other writers' lines."""
    fill(empty, PLAN.tiles()[:3])
    log = log_of(empty)
    log.write_bytes(log.read_bytes()[:-cut])
    again = stores.open(empty.path)
    assert again.progress.missing() == PLAN.tiles()[2:]
    fill(again, PLAN.tiles()[3:])
    assert stores.open(empty.path).progress.missing() == again.progress.missing() == PLAN.tiles()[2:3]


@pytest.mark.parametrize(
    "line",
    [
        b"\0\0\0\0",
        b"\xff\xfe{",
        b"[]",
        b"[" * 100_000,
        b"3",
        b'{"tile": "train-0-0"}',
        b'{"tile": ["train"], "digests": ["a", "b"], "seconds": 1, "time": 1}',
        b'{"tile": "train-9-9", "digests": ["a", "b"], "seconds": 1, "time": 1}',
        b'{"tile": "train-0-0", "digests": 7, "seconds": 1, "time": 1}',
        b'{"tile": "train-0-0", "digests": ["a"], "seconds": "soon", "time": 1}',
    ],
)
def test_nonsense_in_the_log_is_passed_over(full, line):
    log = log_of(full)
    log.write_bytes(log.read_bytes() + line + b"\n")
    again = stores.open(full.path)
    assert again.progress.done() == PLAN.tiles()
    for tile in PLAN.tiles():
        assert (again.read(tile) == block_of(tile)).all()


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_a_log_that_cannot_be_read_is_not_taken_for_an_empty_one(full, kind):
    log = log_of(full)
    log.unlink()
    (os.mkdir if kind == "folder" else os.mkfifo)(log)
    with pytest.raises(UserError) as error:
        stores.open(full.path)
    reason = "not a plain file"
    one_line(error, "cannot read", f"({reason})", "make it readable and run the command again")


def test_a_log_that_cannot_be_written(full, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("open_own", "os.fsync"):
        with full.alone(), monkeypatch.context() as patch:
            patch.setattr(f"cntk_bench.grams.journal.{name}", refuse)
            with pytest.raises(UserError, match="cannot write .*jsonl.*Read-only.*output directory"):
                full.discard(TILE)
        assert full.progress.missing() == []


def test_altered_record_is_damage(full):
    log = log_of(full)
    entry = {
        "tile": str(TILE),
        "digests": ["a" * 64] * 2,
        "round": 1,
        "shape": [1, 3],
        "seconds": 1,
        "time": 1,
    }
    log.write_bytes(log.read_bytes() + json.dumps(entry).encode() + b"\n")
    with pytest.raises(VerificationError, match="train-2-1"):
        stores.open(full.path).read(TILE)


def test_lost_log_means_nothing_is_done(full):
    (log_of(full)).unlink()
    again = stores.open(full.path)
    assert again.progress.missing() == PLAN.tiles()
    fill(again, PLAN.tiles())
    assert (matrix.matrix(again, "test", 1) == TEST[1]).all()


@pytest.mark.parametrize("name", ["y_train", "y_test"])
@pytest.mark.parametrize("how", ["flipped", "missing", "no metadata"])
def test_damaged_labels(full, name, how):
    if how == "no metadata":
        (full.path / name / "zarr.json").unlink()
    else:
        (flip if how == "flipped" else os.unlink)(full.path / name / "c" / "0")
    with pytest.raises(VerificationError, match="labels .* run `compute` again"):
        _ = full.labels
    again = growth.ensure(full.path, PLAN, ATTRIBUTES, IMAGES)
    assert all((a == b).all() for a, b in zip(again.labels, LABELS, strict=True))
    assert again.progress.missing() == []


@pytest.mark.parametrize("name", ["y_train", "train_index", "test_index", "train_image", "test_image"])
@pytest.mark.parametrize("how", ["flipped", "missing", "no metadata"])
def test_damage_of_what_is_kept_of_the_images_is_told_and_mended(full, name, how):
    full.require_images()
    if how == "no metadata":
        (full.path / name / "zarr.json").unlink()
    else:
        (flip if how == "flipped" else os.unlink)(full.path / name / "c" / "0")
    with pytest.raises(VerificationError, match=r"(labels|train_\w* or test_\w*) .* run `compute` again"):
        stores.open(full.path).require_images()
    growth.ensure(full.path, PLAN, ATTRIBUTES, IMAGES).require_images()
    assert stores.open(full.path).images().indices is not None


def test_what_a_store_never_knew_of_its_images_is_no_damage(tmp_path):
    store = growth.create(tmp_path / "g", PLAN, ATTRIBUTES, ImageFacts(LABELS))
    store.require_images()
    assert store.images().indices is None


@pytest.mark.parametrize("name", image_facts.NAMES["labels"])
@pytest.mark.parametrize("size", [0, 4])
def test_labels_of_a_wrong_number_are_damaged(full, name, size):
    """Too few are damage; too many are not, as growing the store may have been interrupted."""
    full.group.create_array(name, data=np.zeros(size, int), overwrite=True)
    with pytest.raises(VerificationError, match="labels .* run `compute` again to restore them"):
        _ = stores.open(full.path).labels


@pytest.mark.parametrize("file", ["zarr.json", "c/0"])
def test_a_pipe_in_the_place_of_labels_keeps_nobody_waiting(full, file):
    (full.path / "y_test" / file).unlink()
    os.mkfifo(full.path / "y_test" / file)
    with pytest.raises(VerificationError, match="labels .* run `compute` again to restore them"):
        _ = full.labels


@pytest.mark.parametrize("lacking", ["y_test", "train_index"])
def test_nothing_is_restored_while_another_run_writes(full, lacking):
    (full.path / lacking / "c" / "0").unlink()
    other = stores.open(full.path)
    with other.shared(), pytest.raises(UserError, match="another run .* is writing .*: wait for it to end"):
        growth.ensure(full.path, PLAN, ATTRIBUTES, IMAGES)
    growth.ensure(full.path, PLAN, ATTRIBUTES, IMAGES)
    assert stores.open(full.path).images().indices is not None


def test_leftovers_of_a_killed_run_are_removed(full):
    leftover = full.path / "train" / "c.0.0.0123.partial"
    leftover.write_bytes(b"half")
    with full.shared():
        assert not leftover.exists()
    assert (matrix.matrix(full, "train", 0) == TRAIN[0]).all()


# Opening


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and error.value.exit_code == 2
    for word in words:
        assert (word.name if isinstance(word, Path) else word) in text  # long paths are shown shortened
    return text


def refused(path, plan=PLAN, asked=ATTRIBUTES, facts=IMAGES):
    with pytest.raises(UserError) as error:
        growth.ensure(path, plan, asked, facts)
    return one_line(error, path, "holds another computation", "another output directory", "--from")


def test_another_computation_is_refused_with_the_differences_in_words(full):
    assert "backend is cpu there, cuda here" in refused(full.path, asked={**ATTRIBUTES, "backend": "cuda"})
    assert "numerics is 1 there, 2 here" in refused(full.path, asked={**ATTRIBUTES, "numerics": 2})
    assert "tile is 3 there, 2 here" in refused(full.path, Plan(7, 5, 2, 2))
    others = ImageFacts(LABELS, IMAGES.indices, (IMAGES.digests[0], IMAGES.digests[1] + (np.arange(5) == 2)))
    assert "the first test image that differs is number 2" in refused(full.path, facts=others)
    seeded = {**ATTRIBUTES, "images": {"data_set": "digits", "seed": 3}}
    assert "its test images are others (seed is 0 there, 3 here)" in refused(full.path, PLAN, seeded, others)


@pytest.mark.parametrize("name", ["y_train", "y_test", "train_image", "test_image"])
def test_other_images_are_refused_although_what_tells_them_is_damaged(full, name):
    flip(full.path / name / "c" / "0")
    others = ImageFacts(LABELS, IMAGES.indices, (IMAGES.digests[0] + 1, IMAGES.digests[1] + 1))
    assert "images are others" in refused(full.path, facts=others)
    fewer = Plan(6, 4, PLAN.tile, PLAN.readouts)
    if name.endswith("_image"):
        words = f"digests are damaged: ask for all {7 if name == 'train_image' else 5}"
        assert words in refused(full.path, fewer, facts=IMAGES.first((6, 4)))
    else:
        growth.ensure(full.path, fewer, ATTRIBUTES, IMAGES.first((6, 4)))
    growth.ensure(full.path, PLAN, ATTRIBUTES, IMAGES).require_images()


def test_images_of_a_store_that_keeps_nothing_but_damaged_digests_are_refused(full):
    """Stores of versions that did not keep a digest of these digests."""
    metadata = json.loads((full.path / "zarr.json").read_text())
    del metadata["attributes"][image_facts.KEPT]
    (full.path / "zarr.json").write_text(json.dumps(metadata))
    assert growth.ensure(full.path, PLAN, ATTRIBUTES, IMAGES).progress.missing() == []
    flip(full.path / "train_image" / "c" / "0")
    assert "cannot be told from others" in refused(full.path)


def test_labels_of_the_same_images_are_those_of_the_data(full):
    """Whatever the store had: labels do not affect the kernels."""
    relabelled = ImageFacts((LABELS[0][::-1], LABELS[1]), IMAGES.indices, IMAGES.digests)
    assert growth.labels_fit(full, IMAGES) and not growth.labels_fit(full, relabelled)
    again = growth.ensure(full.path, PLAN, ATTRIBUTES, relabelled)
    np.testing.assert_array_equal(again.labels[0], LABELS[0][::-1])
    assert again.progress.missing() == []


def test_ensure_opens_or_creates(tmp_path, full):
    assert growth.ensure(full.path, PLAN, ATTRIBUTES, IMAGES).progress.missing() == []
    assert growth.ensure(tmp_path / "new", PLAN, ATTRIBUTES, IMAGES).progress.missing() == PLAN.tiles()


def test_newer_format(full):
    metadata = json.loads((full.path / "zarr.json").read_text())
    metadata["attributes"]["cntk_bench_format"] = 3
    (full.path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError) as error:
        stores.open(full.path)
    one_line(error, "newer", "format 3", "upgrade")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"attributes": {}}', '{"attributes": 3}', "\0\0"])
def test_broken_group_metadata(full, text):
    (full.path / "zarr.json").write_text(text)
    for opening in (stores.open, lambda path: growth.ensure(path, PLAN, ATTRIBUTES, IMAGES)):
        with pytest.raises(UserError) as error:
            opening(full.path)
        one_line(error, full.path, "not a readable Gram store", "another output directory")


@pytest.mark.parametrize("name, value", [("n_train", 0), ("n_train", 8), ("tile", 1), ("readouts", [*"abc"])])
def test_attributes_that_do_not_fit_the_arrays(full, name, value):
    metadata = json.loads((full.path / "zarr.json").read_text())
    metadata["attributes"][name] = value
    (full.path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError) as error:
        stores.open(full.path)
    reason = "n_train 0 is not possible" if value == 0 else "does not fit the plan"
    one_line(error, full.path, "not a readable Gram store", reason, "use another output directory")


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("text", [None, "a pipe", "{", "{}"])
def test_broken_array_metadata(full, part, text):
    if text in (None, "a pipe"):
        (full.path / part / "zarr.json").unlink()
    if text == "a pipe":
        os.mkfifo(full.path / part / "zarr.json")
    elif text is not None:
        (full.path / part / "zarr.json").write_text(text)
    with pytest.raises(UserError) as error:
        stores.open(full.path)
    reason = f"{part}/zarr.json is not a plain file" if text == "a pipe" else ""
    one_line(error, full.path, "not a readable Gram store", reason, "use another output directory")


def test_a_store_that_cannot_be_read(full):
    (full.path / "zarr.json").unlink()
    os.mkfifo(full.path / "zarr.json")
    with pytest.raises(UserError) as error:
        stores.open(full.path)
    one_line(error, "cannot read the Gram store", "(not a plain file)", "make it readable")


def test_no_store(tmp_path):
    with pytest.raises(UserError) as error:
        stores.open(tmp_path / "none")
    one_line(error, "no Gram store at", "compute it first")


@pytest.mark.parametrize("kind", ["file", "below a file", "full directory"])
def test_taken_or_unwritable_path(tmp_path, kind):
    path = tmp_path / "taken"
    if kind == "full directory":
        path.mkdir()
        (path / "thesis.txt").write_text("precious")
    else:
        path.write_text("precious")
    with pytest.raises(UserError) as error:
        growth.ensure(path / "sub" if kind == "below a file" else path, PLAN, ATTRIBUTES, IMAGES)
    one_line(error, path, "cannot write", "output directory")
    assert os.listdir(tmp_path) == ["taken"]  # nothing is left behind or lost
    assert (path / "thesis.txt" if path.is_dir() else path).read_text() == "precious"


# The lock


def test_who_changes_a_store_is_alone(full, monkeypatch):
    other = stores.open(full.path)
    for holding in (full.shared, full.alone):
        with holding():
            with pytest.raises(UserError) as error, other.alone():
                pass
            one_line(error, f"process {os.getpid()}", full.path, "wait for it to end")
    monkeypatch.setattr(stores, "PATIENCE", 0.1)
    with full.alone():
        with pytest.raises(UserError) as error, other.shared():
            pass
        one_line(error, f"process {os.getpid()}", full.path, "wait for it to end")
    with other.alone():
        other.write(TILE, block_of(TILE))


def test_lock_sees_what_others_wrote(empty):
    other = stores.open(empty.path)
    fill(other, PLAN.tiles())
    assert empty.progress.missing() == PLAN.tiles()
    with empty.shared():
        assert empty.progress.missing() == []


def test_no_file_stays_open_after_a_lock(full):
    fill(full, [TILE])  # Python and zarr open some files only once
    before = os.listdir("/proc/self/fd")
    fill(full, [TILE])
    with pytest.raises(KeyboardInterrupt), full.shared():
        raise KeyboardInterrupt
    assert os.listdir("/proc/self/fd") == before


def test_lock_is_freed_by_sigkill(full):
    code = (
        "import sys, time; from cntk_bench.grams import store\n"
        "with store.open(sys.argv[1]).alone(): print('locked', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, full.path], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match=f"process {child.pid} "), full.alone():
            pass
    finally:
        child.kill()
        child.communicate()
    with full.alone():
        assert full.progress.missing() == []


# Failing writes


class Failing:
    """Makes the n-th write or flush fail, counting all of them together."""

    def __init__(self, monkeypatch, code):
        self.left, self.count, self.code, self.lock = -1, 0, code, threading.Lock()
        module = sys.modules["zarr.storage._local"]
        monkeypatch.setattr(module, "_put", self.guard(module._put))
        monkeypatch.setattr(Path, "write_bytes", self.guard(Path.write_bytes))
        monkeypatch.setattr(os, "fsync", self.guard(os.fsync))
        monkeypatch.setattr(files.os, "write", self.guard(os.write))

    def guard(self, function):
        def guarded(*args, **kwargs):
            with self.lock:
                self.count += 1
                self.left -= 1
                if self.left == 0:
                    raise OSError(self.code, os.strerror(self.code))
            return function(*args, **kwargs)

        return guarded


@pytest.mark.parametrize(
    "code, words", [(errno.ENOSPC, "no space left to write"), (errno.EIO, "cannot write .* error")]
)
def test_a_write_that_fails_anywhere(tmp_path, monkeypatch, code, words):
    failing = Failing(monkeypatch, code)
    reference = growth.create(tmp_path / "reference", PLAN, ATTRIBUTES, IMAGES)
    steps = failing.count
    for step in range(1, steps + 1):  # a failure while creating leaves nothing behind
        failing.left = step
        with pytest.raises(UserError, match=words):
            growth.create(tmp_path / "broken", PLAN, ATTRIBUTES, IMAGES)
        assert os.listdir(tmp_path) == ["reference"] or step == steps  # the last step flushes the name itself
    first, second = PLAN.tiles()[:2]
    with reference.shared():
        failing.count = 0
        reference.write(first, block_of(first))
        steps = failing.count
        for step in range(1, steps + 1):  # a failure while writing a tile leaves the others
            failing.left = step
            with pytest.raises(UserError, match=words):
                reference.write(second, block_of(second))
            assert reference.progress.missing()[0] == second
            if step < steps:  # if the line was written but not flushed, it may be found, and is right
                assert stores.open(reference.path).progress.missing()[0] == second
        reference.write(second, block_of(second))
    again = stores.open(reference.path)
    assert again.progress.missing() == PLAN.tiles()[2:]
    assert (again.read(first) == block_of(first)).all() and (again.read(second) == block_of(second)).all()


def test_a_new_store_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """After a power cut there must be a whole store or none."""
    events, rename = [], Path.rename
    monkeypatch.setattr(growth, "flush", events.append)
    monkeypatch.setattr(Path, "rename", lambda *names: (events.append(names), rename(*names)))
    store = growth.create(tmp_path / "s", PLAN, ATTRIBUTES, IMAGES)
    *flushed, (fresh, _), parent = events
    there = {path.relative_to(store.path) for path in (store.path, *store.path.rglob("*"))}
    assert {path.relative_to(fresh) for path in flushed} == there and parent == tmp_path


def test_flushed_before_it_is_recorded(empty, monkeypatch):
    """A power cut must not leave a line in the log whose chunks are missing."""
    events, append = [], journal.Journal.append
    monkeypatch.setattr(chunks, "flush", lambda path: events.append(str(path.relative_to(empty.path))))
    monkeypatch.setattr(journal.Journal, "append", lambda *args: (events.append("line"), append(*args)))
    monkeypatch.setattr(files.os, "fsync", lambda handle: events.append("flush line"))
    fill(empty, [TILE])
    assert sorted(events[:2]) == ["train/c.0.2.1", "train/c.1.2.1"]
    assert events[2:] == ["train", "line", "flush line"]


def test_a_line_that_is_only_half_written(empty, monkeypatch):
    """The disk fills in the middle of a line: this torn line hides neither earlier nor later ones."""
    first, second = PLAN.tiles()[:2]
    fill(empty, [first])
    write, written = os.write, []

    def half(handle, data):
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(write(handle, data[: len(data) // 2]))
        return written[0]

    with empty.shared():
        with monkeypatch.context() as patch:
            patch.setattr(journal.os, "write", half)
            with pytest.raises(UserError, match="what is finished is kept"):
                empty.write(second, block_of(second))
        assert stores.open(empty.path).progress.missing() == PLAN.tiles()[1:]
        empty.write(second, block_of(second))
    assert stores.open(empty.path).progress.missing() == PLAN.tiles()[2:]


def test_lines_of_two_writers_do_not_mix(empty, monkeypatch):
    """The disk takes one byte at a time, but each line is complete before another writer's begins."""
    write = os.write

    def slow(handle, data):
        time.sleep(1e-5)
        return write(handle, data[:1])

    monkeypatch.setattr(journal.os, "write", slow)
    tiles = empty.plan.tiles()[:4]
    with empty.shared(), ThreadPoolExecutor(len(tiles)) as pool:
        list(pool.map(lambda tile: empty.write(tile, np.zeros(tile.shape(empty.plan), "f4")), tiles))
    assert stores.open(empty.path).progress.done() == tiles


@given(st.binary(max_size=400), st.integers(0, 10**6), st.booleans())
@settings(max_examples=60)
def test_a_damaged_log_never_gives_a_wrong_number(filled, junk, place, overwrite):
    """With bytes written anywhere into the log, every tile is right, or damaged, or not done."""
    (log,) = (filled / "journals").iterdir()
    whole = log.read_bytes()
    place %= len(whole)
    try:
        log.write_bytes(whole[:place] + junk + whole[place + overwrite * len(junk) :])
        store = stores.open(filled)
        for tile in PLAN.tiles():
            for readout in range(PLAN.readouts):
                if store.progress.has(tile, [readout]):
                    plane, fault = store.inspect(tile, readout)
                    assert fault or (plane == block_of(tile)[readout]).all()
    finally:
        log.write_bytes(whole)
