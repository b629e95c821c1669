"""Commands in odd surroundings: locales, streams, homes, plotting settings, other people's programs."""

import os
import resource

from bench import manners, predictions, same_bits

PLOTTING = {
    "a backend that is not here": {"MPLBACKEND": "module://nowhere.backend"},
    "a backend that is unknown": {"MPLBACKEND": "\x1b[0m"},
    "a place for settings that is a file": {"MPLCONFIGDIR": "/dev/null"},
    "settings that are no file": {"MATPLOTLIBRC": "/nowhere"},
}
PLACES = {
    "no home": {"HOME": "/nowhere"},
    "a home that is a device": {"HOME": "/dev/null"},
    "an empty home": {"HOME": ""},
    "no terminal": {"TERM": "dumb"},
    "an unknown terminal": {"TERM": "\x1b"},
    "no width": {"COLUMNS": "0"},
    "a width of rubbish": {"COLUMNS": "wide", "LINES": "-1"},
    "a zone of rubbish": {"TZ": "\x1b"},
    "a temporary folder that is not there": {"TMPDIR": "/nowhere"},
    "threads of rubbish": {"OMP_NUM_THREADS": "many"},
}


def runs(bench, status=(0,), **more):
    run = bench.folder / f"run-{len(os.listdir(bench.folder))}"
    done = bench.commands.call("run", bench.config, "--output", run, drawn=True, **more)
    wrong = manners(done, status)
    if not wrong:
        wrong = same_bits(run, bench.whole)
    if not wrong and predictions(run) != predictions(bench.whole):
        wrong = "other predictions"
    if not wrong and not (run / "report" / "accuracy.png").stat().st_size:
        wrong = "no figure"
    return wrong


def test_plotting_settings(bench):
    kind = "others' plotting settings"
    for what, environment in PLOTTING.items():
        bench.survive(kind, what, lambda environment=environment: runs(bench, **environment))
    for line in (
        "text.usetex: True",
        "font.family: Nowhere",
        "savefig.dpi: 5",
        "nonsense: [",
        "backend: \x1b",
    ):
        (bench.folder / "matplotlibrc").write_text(line + "\n")
        bench.survive(kind, line, lambda: runs(bench, cwd=bench.folder))
    bench.report(kind)


def test_places(bench):
    kind = "homes, terminals and variables"
    for what, environment in PLACES.items():
        bench.survive(kind, what, lambda environment=environment: runs(bench, **environment))
    bench.report(kind)


def test_streams_that_are_closed(bench):
    kind = "closed standard streams"
    for closed in ((0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)):
        bench.survive(kind, f"{closed}", lambda closed=closed: runs(bench, closed=closed))
    bench.report(kind)


def test_limits(bench):
    """With few open files allowed, a command works or fails with one line."""
    kind = "few open files"
    for most in (40, 64, 100):

        def check(most=most):
            run = bench.folder / f"limited-{most}"
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            done = bench.commands.call("run", bench.config, "--output", run, limits={"RLIMIT_NOFILE": most})
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
            wrong = manners(done)
            return wrong or manners(bench.compute(run), (0,)) or same_bits(run, bench.whole)

        bench.survive(kind, f"{most}", check)
    bench.report(kind)
