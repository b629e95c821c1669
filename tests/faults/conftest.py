"""The fault suite: faults of every kind, injected into the real command line."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bench import CONFIG, Bench  # noqa: E402
from command import Commands, build_shim  # noqa: E402

WHAT = "| kind of fault | injected | survived |\n|---|---:|---:|\n"


@pytest.fixture(scope="session")
def shared(tmp_path_factory, request):
    """A warm command line and a finished run; at the end, the table of what was survived."""
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
    table = request.config.getoption("faults_table")
    if table:
        rows = (f"| {kind} | {n} | {n - len(wrong)} |\n" for kind, (n, wrong) in sorted(bench.counts.items()))
        Path(table).write_text(WHAT + "".join(rows), encoding="utf-8")


@pytest.fixture
def bench(shared, tmp_path):
    shared.folder = tmp_path
    return shared
