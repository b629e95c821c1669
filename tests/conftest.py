"""What several test files need."""

from pathlib import Path

import fault_table
import pytest

try:  # a GPU's machine may lack it; the tests that run there do without
    from hypothesis import settings
except ImportError:
    pass
else:  # seconds belong to benchmarks: a busy machine is no fault
    settings.register_profile("anywhere", deadline=None)
    settings.load_profile("anywhere")


def pytest_addoption(parser):
    group = parser.getgroup("fault suite")
    text = "faults injected at every kind of system call, about (400: thousands in all)"
    group.addoption("--faults", type=int, default=3, help=text)
    group.addoption("--faults-table", metavar="FILE", help="write there what was injected and survived")


@pytest.fixture
def faults(request):
    """Counts what a test injects: call it with the kind of fault, and how many.

    They are survived if the test passes.
    """

    def count(kind, number=1):
        fault_table.note(request.node, "clusters", kind, number)

    return count


def pytest_configure(config):
    """Only where the table is asked for, and not in the worker processes of pytest-xdist."""
    table = config.getoption("faults_table")
    if table and not hasattr(config, "workerinput"):
        config.pluginmanager.register(fault_table.Counted(Path(table)))


@pytest.fixture(scope="session")
def torchvision():
    """torchvision, or a skip where it is not installed.

    A torchvision built for CUDA beside a torch built without it cannot load its compiled
    operators, and then fails to import because two of them are not declared; data sets need
    neither, so the declarations are enough here.
    """
    torch = pytest.importorskip("torch")
    try:
        import torchvision.datasets
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.datasets
    yield torchvision  # the operators stay declared for as long as `operators` lives
