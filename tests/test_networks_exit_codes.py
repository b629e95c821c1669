"""All ways to end, for the commands that need PyTorch."""

import pytest
from endings import Case, Endings

CASES = {
    "train": Case(("trained.yaml", "-o", "new"), (("tiny.yaml",), ("none.yaml",), ()), True),
    "converge": Case(
        ("trained.yaml", "-o", "new"), (("none.yaml",), ("trained.yaml", "--set", "converge.widths=4")), True
    ),
}


class TestNetworks(Endings):
    CASES = CASES

    @pytest.fixture(autouse=True)
    def torch(self):
        pytest.importorskip("torch")
