"""The layout of a store for a million training images, 5e11 entries, without any numbers in it."""

import numpy as np
import pytest

from cntk_bench import Readout
from cntk_bench.grams import growth, layout, store
from cntk_bench.grams.compute import make_plan
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.lines import Line
from cntk_bench.grams.tiles import PARTS, Tile
from cntk_bench.kernels.spec import Spec

N, M = 10**6, 10**4
READOUT = Readout("ntk", "gap", 21)


@pytest.fixture(scope="module")
def plan():
    return make_plan(Spec((READOUT,), 3, 32), N, M, "cuda")


def test_the_plan(plan):
    """Half a million tiles of a million pairs each take 2 TB for each readout."""
    assert plan.pairs == N * (N + 1) // 2 + N * M
    assert plan.tile == 1024 and plan.count == 977 * 978 // 2 + 10 * 977
    # Tiles are stored whole; those on the diagonal as squares, so a little more than the pairs.
    assert plan.pairs * 4 < plan.bytes < 1.02 * plan.pairs * 4


def test_it_is_made_opened_shared_out_and_followed(plan, tmp_path):
    labels = np.arange(N) % 10, np.arange(M) % 10
    places, digests = ((np.arange(N) * step, np.arange(M) * step) for step in (1, 2**42))
    facts = ImageFacts(labels, places, digests)
    made = growth.create(tmp_path / "gram.zarr", plan, {"readouts": [str(READOUT)]}, facts)
    grams = store.open(made.path)
    assert grams.sizes == (N, M) and not grams.progress.done()
    np.testing.assert_array_equal(grams.labels[0], labels[0])
    shares = [len(grams.progress.missing(shard=(i, 1000))) for i in (1, 500, 1000)]
    assert max(shares) - min(shares) <= 1 and shares[0] == pytest.approx(plan.count / 1000, abs=1)
    last = Tile("train", 976, 976)
    assert last.shape(plan)[1:] == (N - 976 * 1024,) * 2
    for tile in (last, Tile("test", 9, 976), Tile("train", 500, 3)):
        grams.progress.enter(Line(tile, (0,), (7,), _cut(plan, tile)))
        assert grams.progress.has(tile)
    assert grams.progress.counts().tiles == 3
    assert len(layout.within(plan, "train", None)) + len(layout.within(plan, "test", None)) == plan.count
    # Labels, places and digests, 8 bytes each for an image.
    assert sum(file.stat().st_size for file in made.path.rglob("*") if file.is_file()) < 25e6
    assert PARTS == ("train", "test")


def test_its_journals_take_68_megabytes(plan):
    tile = Tile("train", 500, 300)
    line = Line(tile, (0,), (2**64 - 1,), None, seconds=21.123, time=1.7e9, machine="0a1b2c3d")
    assert 60e6 < plan.count * len(f"\n{line}\n") < 70e6


def _cut(plan, tile):
    shape = tile.shape(plan)[1:]
    return None if min(shape) == plan.tile else shape
