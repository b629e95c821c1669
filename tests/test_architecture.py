"""The rooms and the arrows between them: imports go downward only."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cntk_bench"

EVERYWHERE = {"errors", "text", "files"}  # what any room may import

# What each room may import of the package beside them.
ARROWS = {
    "__init__": {"spec", "gramian"},
    "errors": set(),
    "text": set(),
    "files": set(),
    "libraries": set(),
    "lock": set(),
    "journal": {"tiles"},
    "spec": set(),
    "reference": {"spec"},
    "columns": {"spec"},
    "interruption": set(),
    "paths": set(),
    "names": {"paths"},
    "yaml12": set(),
    "config": {"columns", "names", "paths", "spec", "yaml12"},
    "published": set(),
    "tiles": set(),
    "store": {"journal", "libraries", "lock", "tiles"},
    "backends": {"spec", "backends"},
    "gramian": {"backends", "interruption", "spec", "tiles"},
    "verification": {"reference", "spec", "store", "tiles"},
    "data": {"data", "memory", "paths"},
    "memory": set(),
    "cholesky": set(),
    "placement": {"cholesky", "memory"},
    "ridge": {"cholesky"},
    "provenance": {"__init__"},
    "record": {"provenance"},
    "report": {"published", "report"},
    "measure": {"backends", "gramian", "placement", "spec", "store", "tiles"},
    "run": {"config", "lock", "record"},
    "pipeline": {
        "backends",
        "columns",
        "config",
        "data",
        "gramian",
        "placement",
        "record",
        "report",
        "ridge",
        "run",
    }
    | {"spec", "store", "tiles", "verification"},
    "__main__": {"cli"},
}
HEAVY = ("cupy", "torch", "torchvision", "matplotlib", "sklearn", "numba", "zarr", "scipy")


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Rooms of the package that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            names = modules if node.module == "cntk_bench" else [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "cntk_bench":
                known = len(parts) > 1 and any(PACKAGE.glob(f"{parts[1]}*"))
                yield parts[1] if known else "__init__"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_down(path):
    if room(path) == "cli":
        return  # the top: it may call anyone, and nobody calls it
    assert set(imports(path)) - EVERYWHERE <= ARROWS[room(path)]


def test_the_command_line_answers_without_heavy_libraries():
    code = f"import sys, cntk_bench.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gram_is_the_function_whatever_was_imported_before():
    import cntk_bench
    import cntk_bench.gramian

    assert cntk_bench.gram is cntk_bench.gramian.gram
