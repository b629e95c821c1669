# ruff: noqa: F811 (fixtures)
"""Two processes compute the same tile on machines whose last bits differ, and either may be killed."""

import shutil

import numpy as np
import pytest
from toy_store import block_of, bucket, direct, fill, made, server  # noqa: F401

from cntk_bench.errors import VerificationError
from cntk_bench.grams import chunks, store
from cntk_bench.grams.tiles import Plan, Tile

TILE = Tile("train", 1, 0)


@pytest.fixture(params=["disk", "objects"])
def place(request, tmp_path):
    if request.param == "disk":
        return tmp_path / "gram.zarr"
    pytest.importorskip("moto", reason="moto is not installed")
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'cntk-bench[cluster]'")
    return request.getfixturevalue("bucket")


def other(numbers):
    """The same numbers as another kind of machine computes them."""
    return np.nextafter(numbers, np.float32(np.inf))


def killed(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("readouts", [(0, 1), (0,)])
@pytest.mark.parametrize("dies", [False, True])
def test_the_first_ones_numbers_stay(place, monkeypatch, readouts, dies):
    """Whether the second one is killed just before its line, and for readouts that the first one lacks."""
    first, second = made(place), store.open(place)
    with second.shared():  # it has read the journals, and computes
        with first.shared():
            first.write(TILE, block_of(TILE)[list(readouts)], readouts=readouts, machine="a")
        reader = store.open(place)
        with monkeypatch.context() as patch:
            if dies:
                patch.setattr(type(second._journal), "append", killed)
            try:
                second.write(TILE, other(block_of(TILE)), machine="b")
            except KeyboardInterrupt:
                assert dies
    found = store.open(place)
    for one in (reader, found):
        np.testing.assert_array_equal(one.read(TILE, readouts), block_of(TILE)[list(readouts)])
    assert found.progress.has(TILE) is (len(readouts) == 2 or not dies)
    if len(readouts) == 1 and not dies:
        np.testing.assert_array_equal(found.read(TILE, [1]), other(block_of(TILE))[1:])
    assert found.progress.disputed == set()


def test_numbers_that_were_replaced_while_the_journals_were_read_are_no_damage(place, monkeypatch):
    """Two writers saw at the same moment that the tile was not done."""
    first, second = made(place), store.open(place)
    with first.shared(), second.shared():
        first.write(TILE, block_of(TILE), machine="a")
        reader = store.open(place)
        monkeypatch.setattr(store.Store, "_begun_by_others", lambda *_: False)
        second.write(TILE, other(block_of(TILE)), machine="b")
    np.testing.assert_array_equal(reader.read(TILE), other(block_of(TILE)))


def test_what_differs_on_machines_of_one_kind_is_still_noticed(place):
    first, second = made(place), store.open(place)
    with first.shared(), second.shared():
        first.write(TILE, block_of(TILE), machine="a")
        second.write(TILE, other(block_of(TILE)), machine="a")
    assert store.open(place).progress.disputed == {(TILE, 0), (TILE, 1)}


def test_a_retracted_tile_is_written_again(place):
    grams = made(place)
    fill(grams, [TILE])
    with grams.alone():
        grams.discard(TILE)
        grams.write(TILE, other(block_of(TILE)))
    np.testing.assert_array_equal(store.open(place).read(TILE), other(block_of(TILE)))


def test_a_tile_that_was_written_but_not_logged_is_written_again(place, monkeypatch):
    grams = made(place)
    with monkeypatch.context() as patch, grams.shared():
        patch.setattr(type(grams._journal), "append", killed)
        with pytest.raises(KeyboardInterrupt):
            grams.write(TILE, block_of(TILE))
    with grams.shared():
        grams.write(TILE, other(block_of(TILE)))
    np.testing.assert_array_equal(store.open(place).read(TILE), other(block_of(TILE)))


@pytest.mark.parametrize("damage", [b"", b"damaged", None])
def test_a_damaged_chunk_is_written_again_after_an_interrupted_growth(tmp_path, damage):
    """The arrays are larger than the store then, and the last chunk of a row reaches beyond its images."""
    plan = Plan(n_train=10, n_test=5, tile=4, readouts=2)
    grams = made(tmp_path / "gram.zarr", plan)
    fill(grams)
    grams.chunks.resize(Plan(n_train=19, n_test=11, tile=4, readouts=2))
    grams = store.open(grams.path)
    for part in ("train-2-1", "train-2-2", "test-1-2"):
        kind, row, col = part.split("-")
        tile = Tile(kind, int(row), int(col))
        file = grams.path / chunks.name(tile, 1)
        file.unlink() if damage is None else file.write_bytes(damage)
        with pytest.raises(VerificationError):
            grams.read(tile)
        with grams.alone():
            grams.discard(tile)
            grams.write(tile, block_of(tile, plan))
    again = store.open(shutil.copytree(grams.path, tmp_path / "copy"))
    for tile in plan.tiles():
        np.testing.assert_array_equal(again.read(tile), block_of(tile, plan))
    whole = again.group["train"][:]
    assert np.isnan(whole[:, 10:]).all() and np.isnan(whole[:, :, 10:]).all()
