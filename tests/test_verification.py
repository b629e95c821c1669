"""The tolerance of `verify`: right numbers pass, even where terms cancel; wrong ones do not."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from backend_suite import ordinary

from cntk_bench import backends
from cntk_bench.backends import cpu, cuda
from cntk_bench.grams import growth, store
from cntk_bench.grams import verify as verification
from cntk_bench.grams.compute import Job, compute
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.kernels import convolutional as reference
from cntk_bench.kernels.spec import Readout, Spec

sys.path.insert(0, str(Path(__file__).with_name("emulator")))

from emulated import Emulator, compiler  # noqa: E402

READOUTS = tuple(
    Readout(kernel, pool, depth, train)
    for pool in ("v", "gap", "lap:1")
    for kernel, train in (("ntk", "all"), ("ntk", "hidden"), ("nngp", None))
    for depth in (2, 3, 6, 21)
    if not (train == "hidden" and depth == 2)
)
BACKENDS = {"cpu": cpu.Backend, "cuda": lambda spec: cuda.Backend(spec, Emulator())}


def compared(K, x, readouts=READOUTS):
    """An `Entry` for every stored number of a Gram matrix of x, as `verify` compares it."""
    plan, tile = Plan(len(x), len(x), len(x), len(readouts)), Tile("test", 0, 0)
    pairs = ((i, j) for i in range(len(x)) for j in range(i + 1))
    return [
        entry
        for i, j in pairs
        for entry in verification._compare(plan, tile, i, j, readouts, K[:, i, j], x[i], x[j])
    ]


def one_pixel():
    """For opposite images, some kernels are exactly 0, and terms of others cancel."""
    return np.array([0.3, -0.3, 1, -1, 0.7, -0.999, 1e-3, 0], "f4").reshape(-1, 1, 1, 1)


def opposite():
    x = ordinary(4, 2, 5)
    x[1], x[3] = -x[0], -1.37 * x[2]
    return x


def opposite_flat():
    """Flat images whose angles are so near to pi that float32 can hardly tell."""
    x = np.full((5, 1, 6, 6), 1.234, "f4")
    x[1] *= -1
    x[2, 0, ::2, ::3] += 1 / 64
    x[3] = -x[2] * 0.9
    x[4, 0, 1::4] = -1.234 - 1 / 512
    return x


def disjoint():
    """Each image is black where another is bright."""
    x = np.zeros((3, 1, 9, 9), "f4")
    x[0, 0, 0, 0], x[1, 0, 8, 8], x[2, 0, :4] = 1, -1, 0.5
    return x


@pytest.mark.parametrize("images", [one_pixel, opposite, opposite_flat, disjoint])
@pytest.mark.parametrize("name", BACKENDS)
def test_sound_numbers_pass(name, images):
    if name == "cuda" and compiler() is None:
        pytest.skip("no C++ compiler")
    x = images()
    backend = BACKENDS[name](Spec(READOUTS, *x.shape[1:3]))
    prepared = backend.prepare(x)
    entries = compared(backend.tile(prepared, prepared), x)
    wrong = [f"{entry} (images {entry.row}, {entry.col})" for entry in entries if not entry.ok]
    assert not wrong


def test_an_entry_of_zero_may_not_hold_a_thousandth_of_the_diagonal():
    x = np.array([0.5, -0.5], "f4").reshape(2, 1, 1, 1)
    readouts = tuple(r for r in READOUTS if r.depth == 3 and r.train == "hidden")
    K = reference.gram(x, readouts=readouts)
    assert (K[:, 0, 1] == 0).all() and (K[:, 0, 0] > 0).all()
    assert all(entry.ok for entry in compared(K, x, readouts))
    for index, readout in enumerate(readouts):
        wrong = K.copy()
        wrong[index, 1, 0] = 1e-3 * K[index, 0, 0]
        noticed = [entry for entry in compared(wrong, x, readouts) if not entry.ok]
        assert [(entry.readout, entry.row, entry.col) for entry in noticed] == [(readout, 1, 0)]


def test_an_entry_of_v_that_is_a_hundred_thousandth_off_is_noticed():
    """An error of 1e-5 of the diagonal is noticed at every pair; rounding to float32 is not."""
    x = ordinary(4, 3, 5)
    readouts = tuple(r for r in READOUTS if r.pool == "v")
    K = reference.gram(x, readouts=readouts)
    diagonal = np.sqrt(np.einsum("rii->ri", K))
    off = 1e-5 * diagonal[:, :, None] * diagonal[:, None]
    assert not any(entry.ok for entry in compared(K + off, x, readouts))
    assert all(entry.ok for entry in compared(K.astype("f4"), x, readouts))


@pytest.mark.parametrize(("machine", "damaged"), [("another", False), (None, True)])
def test_last_bits_of_another_kind_of_machine_are_no_damage(tmp_path, machine, damaged):
    """Two processes computed the same tile; on machines of one kind, one of them must be wrong."""
    x = ordinary(6, 1, 4)
    plan = Plan(6, 0, 3, 1)
    labels = ImageFacts((np.zeros(6, int), np.zeros(0, int)))
    asked = {"readouts": ["ntk-v-3-all"], "backend": "cpu"}
    made = growth.create(tmp_path / "gram.zarr", plan, asked, labels)
    compute(Job(made, partial(backends.create, "cpu"), x, x[:0]), (0,), made.sizes)
    assert verification.verify(made, x, x[:0], sample=21).ok
    tile = Tile("train", 1, 0)
    block = np.nextafter(made.read(tile, (0,)), np.float32(np.inf))
    with made.shared():
        made.write(tile, block, machine=backends.machine("cpu") if machine is None else machine)
    found = verification.verify(store.open(made.path), x, x[:0], sample=21)
    assert set(found.damaged) == ({tile} if damaged else set())
