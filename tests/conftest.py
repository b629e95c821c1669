"""Fixtures and settings that several test files need."""

import os
from pathlib import Path

import fault_table
import publishers
import pytest

# Modules that tests import: when their assertions fail, the compared values are shown, too.
pytest.register_assert_rewrite(
    "backend_suite", "blocks", "endings", "s3", "toy_tangents", "trained", "warm_program"
)

# Lines of progress depend on time: without this, commands on a busy machine would sometimes print them.
os.environ.setdefault("CNTK_BENCH_PROGRESS_SECONDS", "inf")

try:  # a GPU machine may lack hypothesis; the tests that run there do without it
    from hypothesis import settings
except ImportError:
    pass
else:  # speed is for benchmarks: on a busy machine a slow example is no failure
    settings.register_profile("anywhere", deadline=None)
    settings.load_profile("anywhere")


def pytest_addoption(parser):
    group = parser.getgroup("fault suite")
    text = "faults injected at every kind of system call, about (400: thousands in all)"
    group.addoption("--faults", type=int, default=2, help=text)
    group.addoption("--faults-table", metavar="FILE", help="write there what was injected and survived")


@pytest.fixture
def faults(request):
    """A function that counts injected faults: call it with the kind of fault and how many.

    If the test passes, they count as survived.
    """

    def count(kind, number=1):
        fault_table.note(request.node, "clusters", kind, number)

    return count


@pytest.fixture(autouse=True)
def figures_of_pages(request, monkeypatch):
    """Draw the figures of HTML pages, which take a second for each solve, only in tests marked `drawn`."""
    if "drawn" not in request.keywords:
        from cntk_bench.report import sketch

        monkeypatch.setattr(sketch, "drawn", lambda make, kind: ("data:image/png;base64,", 1, 1))


def pytest_configure(config):
    """Count faults only where the table is asked for, and not in pytest-xdist's worker processes."""
    table = config.getoption("faults_table")
    if table and not hasattr(config, "workerinput"):
        config.pluginmanager.register(fault_table.Counted(Path(table)))


@pytest.fixture
def server():
    """A server on loopback that publishes the files it is given."""
    started = publishers.Server()
    yield started
    started.close()


@pytest.fixture(scope="session")
def torchvision():
    """torchvision, or a skip where it is not installed.

    A torchvision built for CUDA cannot load its compiled operators beside a torch built without CUDA; its
    import then fails as two of them are not declared. Data sets need neither, so declaring them suffices.
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
