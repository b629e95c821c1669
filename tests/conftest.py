"""What several test files need."""

import os
from pathlib import Path

import fault_table
import publishers
import pytest

# Files that tests import: what their assertions compared is shown, too.
pytest.register_assert_rewrite(
    "backend_suite", "blocks", "endings", "s3", "toy_tangents", "trained", "warm_program"
)

# Commands that are tried are silent however busy the machine is: lines of progress come with time.
os.environ.setdefault("CNTK_BENCH_PROGRESS_SECONDS", "inf")

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
    group.addoption("--faults", type=int, default=2, help=text)
    group.addoption("--faults-table", metavar="FILE", help="write there what was injected and survived")


@pytest.fixture
def faults(request):
    """Counts what a test injects: call it with the kind of fault, and how many.

    They are survived if the test passes.
    """

    def count(kind, number=1):
        fault_table.note(request.node, "clusters", kind, number)

    return count


@pytest.fixture(autouse=True)
def figures_of_pages(request, monkeypatch):
    """Figures of HTML pages, a second for each solve, are drawn only in tests marked `drawn`."""
    if "drawn" not in request.keywords:
        from cntk_bench.report import sketch

        monkeypatch.setattr(sketch, "drawn", lambda make, kind: ("data:image/png;base64,", 1, 1))


def pytest_configure(config):
    """Only where the table is asked for, and not in the worker processes of pytest-xdist."""
    table = config.getoption("faults_table")
    if table and not hasattr(config, "workerinput"):
        config.pluginmanager.register(fault_table.Counted(Path(table)))


@pytest.fixture
def server():
    """A server on loopback that publishes what it is given."""
    started = publishers.Server()
    yield started
    started.close()


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
