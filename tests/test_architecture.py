"""What importing the package provides, and what it must not load. (import-linter checks the layers.)"""

import subprocess
import sys

import pytest

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


def test_gram_is_the_function_whatever_was_imported_before():
    import cntk_bench
    import cntk_bench.grams.direct

    assert cntk_bench.gram is cntk_bench.grams.direct.gram
