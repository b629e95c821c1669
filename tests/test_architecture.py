"""What importing the package provides, and what it must not load. (import-linter checks the layers.)"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
HEAVY = ("cupy", "torch", "torchvision", "matplotlib", "sklearn", "numba", "zarr", "scipy", "numpy")


@pytest.mark.parametrize("module", ["cntk_bench", "cntk_bench.cli"])
def test_nothing_heavy_is_imported_before_it_is_used(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_there_and_listed():
    import cntk_bench

    for name in dir(cntk_bench):
        assert getattr(cntk_bench, name).__doc__
    assert set(cntk_bench.__all__) <= set(dir(cntk_bench))
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = cntk_bench.nothing


def test_no_public_name_is_lost():
    """Scripts of users import them: one that is to go is deprecated first (docs/releases.md)."""
    import cntk_bench

    promised = {"CNTKClassifier", "CNTKRegressor", "Readout", "UserError", "diagonal", "gram", "load_images",
                "open_run", "paired", "reference", "store"}  # fmt: skip
    assert promised <= set(cntk_bench.__all__)


def test_the_reference_has_every_public_name_and_every_group_of_entry_points():
    import cntk_bench
    from cntk_bench import backends, columns, executors, regression
    from cntk_bench.data import sources
    from cntk_bench.kernels import pool

    page, promise = (DOCS / "reference" / "python.md").read_text(), (DOCS / "releases.md").read_text()
    for name in cntk_bench.__all__:
        assert re.search(rf"(auto\w+:: |`cntk_bench\.){name}\b", page), name
        assert f"`{name}`" in promise, name
    groups = [part.GROUP for part in (backends, columns, executors, regression, sources, pool)]
    for group in (*groups, columns.FAMILY_GROUP, columns.SECTION_GROUP):
        assert f"| `{group}` |" in page, group


def test_gram_is_the_function_whatever_was_imported_before():
    import cntk_bench
    import cntk_bench.grams.direct

    assert cntk_bench.gram is cntk_bench.grams.direct.gram
