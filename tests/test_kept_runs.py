"""Runs written by earlier versions, one for each store format: they open, with the same numbers.

`fixtures/runs/format-N.zip` is what `run quickstart` left on a CPU, with 12 training and 12 test images,
CNTK-V and depth 3, without tables, log and locks: format 1 by commit 236bcde, format 2 by version 0.1.0.
Every new format adds a file.
"""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from cntk_bench import open_run
from cntk_bench.backends import cpu
from cntk_bench.errors import UserError
from cntk_bench.grams import description, store
from cntk_bench.records import record
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute as computing
from cntk_bench.runs import solve as solving
from cntk_bench.runs import verify as verifying

KEPT = sorted((Path(__file__).parent / "fixtures" / "runs").glob("*.zip"))


@pytest.fixture(params=KEPT, ids=[path.stem for path in KEPT])
def kept(request, tmp_path):
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(tmp_path / request.param.stem)
    return Run(tmp_path / request.param.stem)


def test_every_format_of_stores_is_kept():
    formats = {int(path.stem.removeprefix("format-")) for path in KEPT}
    assert formats == set(range(1, description.FORMAT + 1))


def test_a_run_of_an_earlier_version_opens_is_verified_and_solves_to_the_same_numbers(kept):
    (before,) = record.load(kept.record)["solutions"]
    train = open_run(kept.path).gram("CNTK-V", 3).train
    assert train.shape == (12, 12) and np.array_equal(train, train.T) and np.linalg.eigvalsh(train)[0] > 0
    assert verifying.verify(kept, kept.config(), 4, False).ok
    (after,) = solving.solve(kept, kept.config())["solutions"]
    assert after["accuracy"] == before["accuracy"] and after["trusted"]
    np.testing.assert_allclose(after["loo_error"], before["loo_error"], rtol=1e-9)


def test_a_store_of_other_numerics_is_not_mixed_with_todays(kept):
    more = kept.config(("dataset.train=16",))
    if store.open(kept.gram).attributes["numerics"] == cpu.NUMERICS:
        before = open_run(kept.path).gram("CNTK-V", 3).train
        computing.compute(kept, more)
        after = open_run(kept.path).gram("CNTK-V", 3).train
        assert after.shape == (16, 16)
        np.testing.assert_allclose(after[:12, :12], before, rtol=1e-6)
    else:
        with pytest.raises(UserError, match="numerics is . there"):
            computing.compute(kept, more)
