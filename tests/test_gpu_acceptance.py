"""The acceptance script without a GPU: its arithmetic, its reports, and its sections on the emulator."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).with_name("emulator")), str(ROOT / "scripts")]

import acceptance_suite  # noqa: E402
import gpu_acceptance  # noqa: E402
from emulated import Emulator, compiler  # noqa: E402
from gpu_acceptance import Acceptance, Machine, Skipped, TimedGpu, accept, random_gram  # noqa: E402

from cntk_bench.backends import cuda  # noqa: E402
from cntk_bench.backends.cuda import zones as cuda_zones  # noqa: E402
from cntk_bench.errors import UserError  # noqa: E402
from cntk_bench.grams import store  # noqa: E402
from cntk_bench.kernels import convolutional as reference  # noqa: E402
from cntk_bench.kernels.spec import Readout  # noqa: E402
from cntk_bench.records import provenance  # noqa: E402
from cntk_bench.regression import placement, ridge  # noqa: E402

H200 = Machine("Some GPU", "sm_90", 132, 1.98e9)
RUNGS = ("displacements", "diagonal", "original")

emulated = pytest.mark.skipif(compiler() is None, reason="no C++ compiler: set CXX, or install ziglang")


class Timed(Emulator):
    """An emulator that pretends each launch takes a second: `displacements` takes 5 for 5 x 5 pixels."""

    def seconds(self, work):
        self.launches.clear()
        work()
        names = [name for name, _ in self.launches]
        return {name: float(names.count(name)) for name in names}


def small(gpu=Timed, **more):
    return Acceptance(H200, gpu, True, time.monotonic() + 1000, channels=1, size=5, most=4, **more)


class Clock:
    """The part of CuPy that timing with events needs; time passes only in launches."""

    def __init__(self):
        self.now = 0.0
        self.cuda = self
        self.get_elapsed_time = lambda start, end: 1000 * (end.at - start.at)

    def Event(self):
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.now)
        return event

    def Device(self):
        return SimpleNamespace(synchronize=lambda: None)

    def RawModule(self, code, options):
        def launch(*_, **__):
            self.now += 2

        return SimpleNamespace(get_function=lambda name: launch)


def test_kernels_are_timed_by_events_only_when_asked():
    gpu = TimedGpu.__new__(TimedGpu)  # creates it without looking for a GPU
    gpu.cupy, gpu.events = Clock(), None
    launch = gpu.module("", ())
    launch("before", 1, 1, ())

    def work():
        for name in ("a", "b", "a"):
            launch(name, 1, 1, ())

    assert gpu.seconds(work) == {"a": 4, "b": 2}
    launch("after", 1, 1, ())
    assert gpu.seconds(lambda: None) == {}


def test_share_of_the_issue_limit():
    # 37 instructions, depth 21: the limit is 43,000 pairs a second on an H200.
    entry_layers = 20 * 32**4
    limit = 132 * 4 * 32 * 1.98e9 / (37 * entry_layers)
    assert 43_000 < limit < 43_200
    assert H200.issued(limit / 2, entry_layers, 37) == pytest.approx(0.5)


@emulated
def test_rungs_are_checked_timed_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_acceptance.count_sass, "disassembler", _unavailable)
    results = accept(small(), "abc123", tmp_path, RUNGS)
    assert results["verdict"] == "passed"
    written = json.loads((tmp_path / "gpu-acceptance-quick.json").read_text())
    assert written["commit"] == "abc123" and written["machine"]["gpu"] == "Some GPU"
    for name in RUNGS:
        found = written["sections"][name]
        assert found["passed"] and 0 < found["error"] <= 1e-5 and found["pairs_per_second"] > 0
    found = written["sections"]["displacements"]
    assert found["instructions"] == 26.5 and found["kernel_pairs_per_second"] == found["pairs"] / 5
    assert found["share"] == pytest.approx(H200.issued(found["pairs"] / 5, 20 * 5**4, 26.5))
    assert written["sections"]["original"]["instructions"] is None
    rows = (tmp_path / "gpu-acceptance-quick.md").read_text().splitlines()
    assert any(row.startswith("| displacements | yes |") and "| 26.5 |" in row for row in rows)


def _unavailable():
    raise FileNotFoundError("no nvdisasm")


@emulated
def test_a_wrong_kernel_fails_the_run_but_not_the_sections_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_acceptance.count_sass, "disassembler", _unavailable)

    class Wrong(Timed):
        def module(self, text, options):
            return super().module(text.replace("return open[i];", "return 1;"), options)

    results = accept(small(Wrong), "", tmp_path, ("displacements", "original"))
    assert results["verdict"] == "failed: displacements"
    assert results["sections"]["displacements"]["passed"] is False
    assert results["sections"]["original"]["passed"] is True
    assert set(results["pairs_per_second"]) == {"original"}  # the rate of a wrong kernel does not count
    assert "| displacements | NO |" in (tmp_path / "gpu-acceptance-quick.md").read_text()


@emulated
def test_precision_is_judged_on_images_that_provoke_rounding():
    class Coarse(Timed):
        def __init__(self):
            super().__init__(ulps=1000)

    def found(gpu):
        return Acceptance(H200, gpu, True, time.monotonic() + 1000, size=12).precision()

    fine = found(Timed)
    assert fine["passed"] and not found(Coarse)["passed"]
    assert len(fine["errors"]) >= 7
    assert all(set(errors) == {"CNTK-V", "CNTK-GAP", "NNGP-GAP"} for errors in fine["errors"].values())


def test_made_up_images_are_the_same_whatever_the_others_are():
    """Their errors depend on every bit of their levels, so random levels could fail even on a sound GPU."""
    one, other = (
        gpu_acceptance.precision.families(np.random.default_rng(seed).integers(0, 256, (12, 3, 16, 16)) * 1.0)
        for seed in (1, 2)
    )
    made_up = (gpu_acceptance.precision.FLAT[1], *gpu_acceptance.precision.NEARLY_FLAT)
    for name in made_up:
        np.testing.assert_array_equal(one[name], other[name])


@emulated
def test_the_stage_goes_through_a_store():
    pytest.importorskip("zarr")
    found = small().stage_gap()
    assert found["passed"] and found["pairs"] > 3
    assert found["pairs_per_second"] > 0 and found["of_the_backend_alone"] > 0


@emulated
def test_a_stage_that_stores_other_numbers_fails(monkeypatch):
    pytest.importorskip("zarr")
    write = store.Store.write
    monkeypatch.setattr(
        store.Store, "write", lambda self, tile, block, *more: write(self, tile, block + 1, *more)
    )
    assert small().stage_gap()["passed"] is False


def test_solves_are_judged_by_residual_and_memory(monkeypatch):
    """The section's own arithmetic, with NumPy instead of CuPy, and the CPU's solver."""
    used = iter(range(10**9))
    runtime = SimpleNamespace(memGetInfo=lambda: (10**9 - 1000 * next(used), 0))
    pool = SimpleNamespace(free_all_blocks=lambda: None)
    fake = SimpleNamespace(
        asarray=np.asarray, cuda=SimpleNamespace(runtime=runtime), get_default_memory_pool=lambda: pool
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    solve, place = ridge.solve, placement.Place("cuda", "float64", 0, 10**9)
    monkeypatch.setattr(ridge, "solve", lambda *args, **more: solve(*args, **more | {"device": "cpu"}))
    monkeypatch.setattr(placement, "choose", lambda *_, **__: place)
    found = small().solve(300, matrices=3)
    assert found["passed"] and found["solved"] == "3 of 3 matrices, 2 ridges each"
    assert 0 < found["residual"] < 1e-8 and found["solve_seconds"] > 0
    late = Acceptance(H200, Timed, False, time.monotonic())
    late = late.solve(300, matrices=3)
    assert late["passed"] is None and late["solved"].startswith("1 of 3")  # all that it had time for
    place = placement.Place("cuda", "float64", 0, 1)
    assert found["used_gpu_gib"] > 0 and not small().solve(300)["passed"]

    def full(*_, **__):
        raise UserError("the GPU has 1 GiB free")

    monkeypatch.setattr(placement, "choose", full)
    with pytest.raises(Skipped, match="1 GiB free"):
        small().solve(300)


@emulated
def test_neural_tangents_where_they_agree_and_where_not(monkeypatch):
    """Stand-ins for jax and make_fixtures' networks: the definition itself, and one that is off by 1e-3."""
    jax = SimpleNamespace(
        default_backend=lambda: "gpu", jit=lambda f: f, devices=lambda: ["a GPU"], __version__="0",
        config=SimpleNamespace(update=lambda *_: None),
    )  # fmt: skip

    class Array(np.ndarray):
        def block_until_ready(self):
            pass

    def networks(off):
        def kernel(first, other):
            x, z = (np.moveaxis(images, -1, 1) for images in (first, other))
            (exact,) = reference.gram(x, z, readouts=[Readout("ntk", "gap", 21)])
            return (off * exact / 3).view(Array)

        return SimpleNamespace(network=lambda *_: ([], [], 3), hidden_kernel=lambda *_: kernel)

    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setitem(sys.modules, "make_fixtures", networks(1))
    found = small().neural_tangents()
    assert found["passed"] is True and found["error"] < 1e-6 and found["pairs"] == 4
    monkeypatch.setitem(sys.modules, "make_fixtures", networks(1.001))
    found = small().neural_tangents()
    assert found["passed"] is None and found["error"] == pytest.approx(1e-3, rel=1e-2)
    jax.default_backend = lambda: "cpu"
    with pytest.raises(Skipped, match="on the cpu"):
        small().neural_tangents()


def test_sections_that_break_or_cannot_run_are_told_apart(tmp_path):
    class Odd(Acceptance):
        def breaks(self):
            raise RuntimeError("a | b\nc")

        def lacks(self):
            raise Skipped("no package")

        def refuses(self):
            raise UserError("the GPU's memory is full")

    odd = Odd(H200, Timed, True, time.monotonic() + 1000)
    results = accept(odd, "", tmp_path, ("lacks",))
    lacks = results["sections"]["lacks"]
    assert results["verdict"] == "incomplete: lacks"
    assert lacks["passed"] is None and lacks["note"] == "no package"
    assert accept(odd, "", tmp_path, ("refuses",))["verdict"] == "failed: refuses"
    results = accept(odd, "", tmp_path, ("breaks", "lacks"))
    assert results["verdict"] == "failed: breaks"
    text = (tmp_path / "gpu-acceptance-quick.md").read_text()
    assert "| breaks | NO |" in text and "| note: RuntimeError: a / b c |" in text
    assert "| lacks | no verdict |" in text
    late = Odd(H200, Timed, True, time.monotonic())
    results = accept(late, "", tmp_path, ("breaks",))
    assert results["sections"]["breaks"]["note"].startswith("no time left")
    assert results["verdict"] == "incomplete: breaks"
    assert accept(late, "", tmp_path, ("one_column",))["verdict"] == "passed"  # comparisons may be missing


def test_what_is_not_finite_is_written_as_json(tmp_path):
    class Wrong(Acceptance):
        def wrong(self):
            return {"passed": False, "error": float("nan"), "pairs_per_second": 1.0}

    accept(Wrong(H200, Timed, True, time.monotonic() + 1000), "", tmp_path, ("wrong",))
    text = (tmp_path / "gpu-acceptance-quick.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["sections"]["wrong"]["error"] is None
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "gpu-acceptance-quick.json",
        "gpu-acceptance-quick.md",
    ]


@emulated
@pytest.mark.parametrize(("section", "name"), [("one_column", "COLUMNS"), ("large_blocks", "WARPS")])
def test_other_choices_are_timed_and_undone(section, name, monkeypatch):
    monkeypatch.setattr(gpu_acceptance.count_sass, "disassembler", _unavailable)
    chosen, shipped = [], getattr(cuda_zones, name)

    class Noting(Timed):
        def module(self, text, options):
            chosen.extend(option for option in options if option.startswith(f"-D{name}="))
            return super().module(text, options)

    found = getattr(small(Noting), section)()
    assert found["passed"] and found[name] != shipped and found["pairs_per_second"] > 0
    assert f"-D{name}={found[name]}" in chosen and getattr(cuda_zones, name) == shipped


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1), (None, 3)])
def test_exit_codes_and_sections_of_a_quick_run(passed, code, tmp_path, monkeypatch, capsys):
    ran = []

    def section(_, name):
        ran.append(name)
        return {"passed": passed, "seconds": 0.0}

    monkeypatch.setattr(gpu_acceptance, "find_machine", lambda: H200)
    monkeypatch.setattr(gpu_acceptance, "run_section", section)
    assert gpu_acceptance.main(["--quick", "--output", str(tmp_path)]) == code
    assert ran == list(gpu_acceptance.QUICK) and set(ran) < set(gpu_acceptance.SECTIONS)
    ran.clear()
    assert gpu_acceptance.main(["--output", str(tmp_path / "new")]) == code
    assert {file.name for file in tmp_path.glob("gpu*")} == {
        f"gpu-acceptance-quick.{s}" for s in ("json", "md")
    }
    assert {file.name for file in tmp_path.glob("new/*")} == {f"gpu-acceptance.{s}" for s in ("json", "md")}
    assert "quick" in (tmp_path / "gpu-acceptance-quick.md").read_text()
    assert ran == list(gpu_acceptance.SECTIONS) and "Some GPU" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert gpu_acceptance.main(["--output", str(tmp_path / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_rates_of_quick_sections_fit_their_time():
    assert sum(gpu_acceptance.SECTIONS[name] for name in gpu_acceptance.QUICK) / 3 < 110
    needed = set(gpu_acceptance.SECTIONS) - set(gpu_acceptance.OPTIONAL)
    assert sum(gpu_acceptance.SECTIONS[name] for name in needed) < 480


def test_tests_are_run_and_counted(tmp_path, monkeypatch):
    # The user's options for other calls must not matter.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-qq -k nothing")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def found(*texts, seconds=60.0):
        files = [tmp_path / f"test_{number}.py" for number in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text("import time, pytest\n" + text)
        return acceptance_suite.run(files, seconds, at_once=2)

    good, none = "def test_good(): pass\n", "pytest.skip('nothing here', allow_module_level=True)\n"
    began = time.monotonic()
    assert found(good, good, none)["passed"] is True
    # Enough also where other programs keep the cores busy.
    enough = max(15, int(3 * (time.monotonic() - began)))
    bad = found(good, "def test_bad(): assert 1 == 2\n")
    assert bad["passed"] is False and bad["tests"] == {"passed": 1, "failed": 1, "error": 0, "skipped": 0}
    assert "assert 1 == 2" in bad["output"]
    assert found("import missing_package\n" + good)["passed"] is False
    assert found(none)["passed"] is False  # no test was run
    slow = f"""def test_slow():
        import pathlib, subprocess
        child = subprocess.Popen(["sleep", "600"])
        pathlib.Path("{tmp_path}/child").write_text(str(child.pid))
        child.wait()
"""
    stopped = found(good + slow, good, seconds=enough)
    assert stopped["passed"] is None and stopped["tests"]["passed"] == 2
    assert f"after {enough} s: " in stopped["stopped"] and "test_0.py" in stopped["stopped"]
    child = Path("/proc", (tmp_path / "child").read_text(), "stat")
    # Processes that the tests started were ended, too.
    assert not child.exists() or " Z " in child.read_text()


def test_the_whole_suite_needs_every_package(monkeypatch):
    assert "numpy" not in acceptance_suite.missing_packages()
    monkeypatch.setattr(provenance, "installed", lambda name: None)
    assert {"numpy", "zarr", "pytest"} <= set(acceptance_suite.missing_packages())
    with pytest.raises(Skipped, match="zarr"):
        small().whole_suite()
    with pytest.raises(Skipped, match="pytest"):
        small().cuda_tests()


def test_the_suite_is_all_files_but_the_one_run_before(monkeypatch):
    monkeypatch.setattr(acceptance_suite, "missing_packages", lambda: [])
    monkeypatch.setattr(acceptance_suite, "run", lambda files, *_, **__: {"files": [str(f) for f in files]})
    suite, cuda_tests = small().whole_suite()["files"], small().cuda_tests()["files"]
    everything = {f"tests/{file.name}" for file in ROOT.glob("tests/test_*.py")}
    assert {*suite, *cuda_tests} == everything and not {*suite} & {*cuda_tests}


def test_random_gram_is_symmetric_and_positive_definite():
    gram = random_gram(300, np)
    assert gram.dtype == np.float32 and abs(gram - gram.T).max() < 1e-5
    assert np.linalg.eigvalsh(gram.astype(np.float64)).min() > 0.9


@pytest.mark.skipif(cuda.available(), reason="there is a GPU")
def test_without_a_gpu_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "gpu_acceptance.py", "--output", tmp_path / "results"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("no acceptance: ")
    assert not (tmp_path / "results").exists()
