"""How a tile is cut into blocks for a GPU; what the blocks compute does not matter here."""

import numpy as np
import pytest

from cntk_bench.backends.cuda.device import downloaded, launched
from cntk_bench.errors import UserError


class Gpu:
    """Returns what was launched, and logs when it was asked for."""

    def __init__(self):
        self.log = []

    def download_later(self, array):
        return lambda: (self.log.append("download"), array)[1]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("n", "m", "side"), [(7, 7, 3), (6, 6, 3), (2, 2, 5), (1, 1, 1), (7, 4, 3)])
def test_every_pair_is_in_one_block(n, m, side, symmetric):
    if symmetric and n != m:
        return
    gpu, full = Gpu(), np.arange(n * m).reshape(1, n, m)
    halves = []

    def block(rows, columns, half):
        gpu.log.append("launch")
        halves.append((rows, columns, half))
        return full[:, rows, columns]

    found = launched(gpu, (n, m), side, symmetric, block)
    assert gpu.log == ["launch"] * len(halves)  # all blocks are launched before any is waited for
    seen, out = np.zeros((n, m), int), np.full((1, n, m), -1)
    for rows, columns, numbers in downloaded(found):
        seen[rows, columns] += 1
        out[:, rows, columns] = numbers
        assert numbers.shape[1] <= side and numbers.shape[2] <= side
    needed = np.tri(n, m, dtype=bool) if symmetric else np.ones((n, m), bool)
    assert (seen[needed] == 1).all() and seen.max() == 1
    np.testing.assert_array_equal(out[0][needed], full[0][needed])
    assert all(half == (symmetric and rows == columns) for rows, columns, half in halves)
    assert [(r.start, c.start) for r, c, _ in halves] == sorted((r.start, c.start) for r, c, _ in halves)


def test_a_full_memory_is_one_line_whenever_it_is_full():
    def full(*_):
        raise MemoryError("16 bytes")

    with pytest.raises(UserError, match="the GPU's memory is full: .*--backend cpu .16 bytes."):
        launched(Gpu(), (1, 1), 1, False, full)
    with pytest.raises(UserError, match="the GPU's memory is full"):
        list(downloaded([(slice(0, 1), slice(0, 1), full)]))
