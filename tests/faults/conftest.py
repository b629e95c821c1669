"""Fixtures of the fault suite, which injects faults of every kind into the real command line."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bench import CONFIG, Bench  # noqa: E402
from command import Commands, build_shim  # noqa: E402


@pytest.fixture(scope="session")
def shared(tmp_path_factory, request):
    """A bench with a warm command line and a finished run."""
    pytest.importorskip("ziglang", reason="no C compiler: install the extra [test]")
    if not sys.platform.startswith("linux"):
        pytest.skip("the preloaded library is for Linux")
    folder = tmp_path_factory.mktemp("faults")
    commands = Commands(folder, build_shim(folder))
    config = folder / "small.yaml"
    config.write_text(CONFIG)
    done = commands.call("run", config, "--output", folder / "whole")
    assert done.status == 0, done.stderr
    bench = Bench(commands, folder, config, folder / "whole", request.config.getoption("faults"))
    yield bench
    commands.close()


@pytest.fixture
def bench(shared, tmp_path, request):
    shared.folder, shared.node = tmp_path, request.node
    return shared
