"""Matrices streamed from a store: the same numbers as whole ones, checked, in bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams import growth, matrix, store, stream
from cntk_bench.grams.chunks import Unreadable
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.stream import Stored
from cntk_bench.grams.tiles import Plan
from cntk_bench.regression import placement
from cntk_bench.system.memory import GIB

READOUTS = ["ntk-v-3-all", "ntk-gap-3-hidden"]


def written(folder, n, m, tile, kernel, readouts=READOUTS):
    """A store filled with kernel(rows, cols, readout), as float32."""
    plan = Plan(n, m, tile, len(readouts))
    labels = ImageFacts((np.arange(n) % 10, np.arange(m) % 10))
    found = growth.create(folder / "gram.zarr", plan, {"readouts": readouts}, labels)
    with found.shared():
        for one in plan.tiles():
            rows, cols = (np.arange(n + m)[part] for part in (one.rows(plan), one.cols(plan)))
            rows = rows + n * (one.part == "test")
            found.write(one, np.stack([kernel(rows, cols, r) for r in range(len(readouts))]).astype("f4"))
    return found


def numbers(rows, cols, readout):
    """A symmetric matrix whose entries are all different."""
    low, high = np.minimum(rows[:, None], cols), np.maximum(rows[:, None], cols)
    return 1000 * readout + high + low / 64


def assembled(stored, diagonal=False):
    out = np.full((stored.n, stored.n), np.nan)
    for rows, cols, block in stored.pieces(diagonal):
        assert block.dtype == np.float32 and np.isnan(out[rows, cols]).all()  # no entry comes twice
        out[rows, cols] = block
    return out


@pytest.mark.parametrize("n, tile, side", [(37, 8, 8), (37, 8, 20), (37, 16, 1024), (5, 8, 16), (64, 16, 1)])
def test_pieces_are_the_lower_triangle(tmp_path, monkeypatch, n, tile, side):
    monkeypatch.setattr(stream, "SIDE", side)
    made = written(tmp_path, n, 3, tile, numbers)
    for index, readout in enumerate(READOUTS):
        stored = Stored(made, readout)
        found, whole = assembled(stored), made.matrix("train", readout)
        assert stored.n == n
        lower = np.tril_indices(n)
        np.testing.assert_array_equal(found[lower], whole[lower])
        known = ~np.isnan(found)
        np.testing.assert_array_equal(found[known], whole[known])
        corners = assembled(stored, diagonal=True)
        np.testing.assert_array_equal(
            corners.diagonal(), numbers(np.arange(n), np.arange(n), index).diagonal()
        )
        assert np.isnan(corners).sum() >= np.isnan(found).sum()


@pytest.mark.parametrize("draw", [(0, 3), (1, 3), (2, 3), (0, 1)])
@pytest.mark.parametrize("sizes", [None, (30, 5)])
def test_draws_and_first_images(tmp_path, monkeypatch, draw, sizes):
    monkeypatch.setattr(stream, "SIDE", 16)
    monkeypatch.setattr(stream, "ENTRIES", 40)
    made = written(tmp_path, 36, 9, 8, numbers)
    stored = Stored(made, READOUTS[1], sizes=sizes, draw=draw)
    whole = matrix.matrix(made, "train", READOUTS[1], sizes=sizes, draw=draw)
    lower = np.tril_indices(len(whole))
    np.testing.assert_array_equal(assembled(stored)[lower], whole[lower])
    blocks = list(stream.test_blocks(made, READOUTS[1], sizes=sizes, draw=draw))
    assert all(block.dtype == np.float64 and block.size <= max(40, len(whole)) for block in blocks)
    np.testing.assert_array_equal(
        np.concatenate(blocks), matrix.matrix(made, "test", READOUTS[1], sizes=sizes, draw=draw)
    )


def test_an_identity_is_that_of_the_numbers(tmp_path):
    made = {}
    for name, change in (("one", 0), ("same", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        made[name] = written(
            tmp_path / name, 20, 2, 8, lambda r, c, i, d=change: numbers(r, c, i) + d * (r[:, None] + c == 19)
        )
    one = Stored(made["one"], READOUTS[0]).identity
    assert (
        one == Stored(made["same"], READOUTS[0]).identity == Stored(store.open(made["one"].path), 0).identity
    )
    others = [Stored(made["other"], 0), Stored(made["one"], 1), Stored(made["one"], 0, sizes=(19, 2))]
    others += [Stored(made["one"], 0, draw=(d, 2)) for d in (0, 1)]
    found = [other.identity for other in others]
    assert len({one, *found}) == 6


def damaged(made, tile="1.0", valid=False):
    """Alter a number of a tile; with `valid`, correct the chunk's own checksum, as a program would."""
    file = made.path / "train" / f"c.0.{tile}"
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    if valid:
        import google_crc32c

        content[-4:] = google_crc32c.value(bytes(content[:-4])).to_bytes(4, "little")
    file.write_bytes(bytes(content))


def test_digests_are_checked_in_the_first_pass(tmp_path):
    made = written(tmp_path, 20, 2, 8, numbers)
    damaged(made, valid=True)
    with pytest.raises(VerificationError, match="tile train-1-0 .* the digest does not fit"):
        assembled(Stored(made, 0))


def test_a_pass_that_was_not_finished_checks_nothing(tmp_path):
    made = written(tmp_path, 20, 2, 8, numbers)
    stored = Stored(made, 0)
    next(iter(stored.pieces()))
    assembled(stored, diagonal=True)
    damaged(made, "2.1", valid=True)
    with pytest.raises(VerificationError, match="tile train-2-1"):
        assembled(stored)


def test_later_passes_look_at_the_checksums_of_chunks(tmp_path):
    made = written(tmp_path, 20, 2, 8, numbers)
    stored = Stored(made, 0)
    before = assembled(stored)
    np.testing.assert_array_equal(assembled(stored), before)
    damaged(made)
    with pytest.raises(VerificationError, match="tile train-1-0 .* is damaged"):
        assembled(stored)


@pytest.mark.parametrize("draw", [(0, 1), (1, 2)])
def test_a_chunk_that_is_gone_after_the_first_pass_is_no_number(tmp_path, draw):
    made = written(tmp_path, 20, 2, 8, numbers)
    stored = Stored(made, 0, draw=draw)
    assembled(stored)
    (made.path / "train" / "c.0.2.2").unlink()
    with pytest.raises(Unreadable, match=r"rows \d+ to 19, .* cannot be read now .*: mend that and run"):
        assembled(stored)


def test_what_is_not_computed_is_told(tmp_path):
    made = written(tmp_path, 20, 2, 8, numbers)
    with made.alone():
        made.discard(made.plan.tile_at("train", 1))
    with pytest.raises(UserError, match="is not computed yet"):
        assembled(Stored(made, 0))


SOLVE = """
import json, sys
from pathlib import Path
import numpy as np
from scipy.linalg import solve
from cntk_bench.grams import store, stream
from cntk_bench.regression import iterative, placement, prediction
from cntk_bench.regression.attempts import How
from held import Held
from cntk_bench.system.memory import peak
folder, limit = Path(sys.argv[1]), float(sys.argv[2])
K = np.exp(-np.abs(np.subtract.outer(np.arange(64.0), np.arange(64.0))))
iterative.cg(Held(K), np.arange(64) % 10, classes=10, rank=8)  # libraries are loaded
gram = store.open(folder / "gram.zarr")
n, labels = gram.plan.n_train, gram.labels[0]
next(iter(stream.test_blocks(gram, 0, sizes=(64, 1))))
before = peak()
place = placement.choose(
    n, classes=10, limit=limit, device="cpu", solver="auto", streaming=stream.memory(gram.plan)
)
how = How(file=folder / "state" / "0.npz")
solution = iterative.cg(stream.Stored(gram, 0), labels, classes=10, ridge=3.0, rank=place.rank, how=how)
found = prediction.predict(solution.alpha, stream.test_blocks(gram, 0))
used = peak() - before
T = np.concatenate(list(stream.test_blocks(gram, 0)))
A = gram.matrix("train", 0)
A[np.diag_indices(n)] += 3.0 * A.diagonal().mean()
direct = solve(A, np.eye(10)[labels] - 0.1, assume_a="pos", overwrite_a=True, check_finite=False)
print(json.dumps({
    "method": place.method, "rank": place.rank, "predicted": place.host, "used": used,
    "direct": peak() - before, "doubt": solution.chosen.doubt,
    "apart": abs(T @ (solution.alpha - direct)).max() / abs(T @ direct).max(),
    "same": bool((found.classes == (T @ direct).argmax(1)).all()),
}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_memory_is_bounded_by_the_setting(tmp_path):
    """A subprocess reports its own peak; the direct solve needs clearly more."""
    n, m, limit = 4500, 60, 0.15
    x = np.random.default_rng(0).standard_normal((n + m, 5))

    def kernel(rows, cols, _):
        products = x[rows] @ x[cols].T
        return np.exp((2 * products - (x[rows] ** 2).sum(1)[:, None] - (x[cols] ** 2).sum(1)) / 10)

    written(tmp_path, n, m, 512, kernel, READOUTS[:1])
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SOLVE, str(tmp_path), str(limit)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["method"] == "cg" and 20 < told["rank"] < n / 8  # the rank that the setting leaves room for
    assert 8 * n * told["rank"] < told["used"] <= told["predicted"] <= limit * GIB
    direct = [placement.predict(n, classes=10, device="cpu", dtype=t).host for t in ("float64", "float32")]
    assert min(direct) > 1.2 * limit * GIB and told["direct"] > 2 * told["used"]
    assert told["apart"] < 1e-6 and told["same"] and told["doubt"] is None
