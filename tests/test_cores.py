"""How many threads are used: the least of what the system, a container and a scheduler allow."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cntk_bench.backends.cuda import device
from cntk_bench.config import config
from cntk_bench.errors import UserError
from cntk_bench.runs import workers
from cntk_bench.system import cores

BOUND = 8


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine with eight cores and no limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(BOUND)), raising=False)
    monkeypatch.setattr(cores, "_quota", lambda: None)
    for name in cores.VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_by_default_as_many_as_the_process_is_bound_to():
    assert cores.threads() == BOUND


@pytest.mark.parametrize("name", cores.VARIABLES)
@pytest.mark.parametrize(
    "value, expected", [("3", 3), ("2,4", 2), ("100", BOUND), ("0", BOUND), ("many", BOUND), ("", BOUND)]
)
def test_the_environment_limits_it(monkeypatch, name, value, expected):
    monkeypatch.setenv(name, value)
    assert cores.threads() == expected


def test_what_is_asked_for_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with cores.limited(5):
        assert cores.threads() == 5
        with cores.limited(2):
            with cores.limited(5):
                assert cores.threads() == 5
            assert cores.threads() == 2
        with cores.limited(None):
            assert cores.threads() == 5
    assert cores.threads() == 1


@pytest.mark.parametrize("quota, expected", [(0.5, 1), (2.5, 3), (3.0, 3), (99.0, BOUND)])
def test_a_share_of_time_is_rounded_up_to_threads(monkeypatch, quota, expected):
    monkeypatch.setattr(cores, "_quota", lambda: quota)
    assert cores.threads() == expected


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4.0),
        ({"a/b/cpu.max": "50000 100000", "a/cpu.max": "400000 100000"}, 0.5),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_quota_of_control_groups_version_2(tmp_path, monkeypatch, files, expected):
    monkeypatch.undo()
    write(tmp_path, files)
    (tmp_path / "membership").write_text("0::/a/b\n")
    assert cores._quota(tmp_path, tmp_path / "membership") == expected


@pytest.mark.parametrize(
    "files, expected",
    [
        ({"cpu/x/cpu.cfs_quota_us": "200000", "cpu/x/cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 0.5),
    ],
)
def test_quota_of_control_groups_version_1(tmp_path, monkeypatch, files, expected):
    monkeypatch.undo()
    write(tmp_path, files)
    (tmp_path / "membership").write_text("4:memory:/x\n3:cpu,cpuacct:/x\n")
    assert cores._quota(tmp_path, tmp_path / "membership") == expected


def test_a_group_outside_of_what_a_container_sees(tmp_path, monkeypatch):
    monkeypatch.undo()
    write(tmp_path, {"cgroup/a/cpu.max": "150000 100000", "a/cpu.max": "50000 100000"})
    (tmp_path / "membership").write_text("0::/../a\n")
    assert cores._quota(tmp_path / "cgroup", tmp_path / "membership") == 1.5


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")


def compute(**keys):
    return config.Compute(**keys)


def test_one_gpu_or_none_is_this_process(monkeypatch):
    for devices in ([], ["0"]):
        monkeypatch.setattr(workers.backends, "devices", lambda name, found=devices: found)
        name, crew, threads = workers.chosen(compute(), "cuda")
        assert (name, len(crew.places), threads) == ("local", 1, None)


def test_several_gpus_are_a_process_each(monkeypatch):
    monkeypatch.setattr(workers.backends, "devices", lambda name: ["3", "5"])
    name, crew, threads = workers.chosen(compute(), "cuda")
    assert name == "processes" and threads == BOUND // 2
    assert [place["CUDA_VISIBLE_DEVICES"] for place in crew.places] == ["3", "5"]
    name, crew, _ = workers.chosen(compute(workers=3), "cuda")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in crew.places] == ["3", "5", "3"]
    assert workers.chosen(compute(workers=1), "cuda")[0] == "local"


def test_cores_are_shared_among_processes_without_gpus():
    name, crew, threads = workers.chosen(compute(executor="processes", workers=2), "cpu")
    assert (name, len(crew.places), threads) == ("processes", 2, 4)
    assert workers.chosen(compute(executor="processes"), "cpu")[2] == 1
    assert workers.chosen(compute(executor="processes", workers=100), "cpu")[2] == 1
    assert workers.chosen(compute(executor="processes", threads=3), "cpu")[2] == 3


def test_what_has_no_effect_is_told(caplog):
    workers.chosen(compute(workers=4), "cpu")
    assert "compute.workers is 4, but this process alone computes: use --executor processes" in caplog.text
    caplog.clear()
    asked = compute(executor="dask", workers=4, scheduler="tcp://h:1")
    assert len(workers.chosen(asked, "cpu")[1].places) == 1
    assert "compute.workers is 4, but the scheduler has workers of its own" in caplog.text


def test_more_threads_than_cores_are_told(caplog):
    workers.chosen(compute(executor="processes", workers=BOUND), "cpu")
    workers.chosen(compute(executor="processes", workers=2, threads=BOUND // 2), "cpu")
    workers.chosen(compute(executor="slurm", workers=100), "cpu")
    assert not caplog.text
    workers.chosen(compute(executor="processes", workers=2, threads=BOUND), "cpu")
    assert f"2 workers with {BOUND} threads each on {BOUND} cores" in caplog.text
    caplog.clear()
    workers.chosen(compute(executor="dask", workers=BOUND + 1), "cpu")
    assert f"{BOUND + 1} workers with 1 threads each" in caplog.text


@pytest.mark.parametrize(
    ("name", "kept", "dropped"),
    [
        ("OMP_NUM_THREADS", ("4", "4,2", " 3 "), ("many", "0", "-1", "")),
        ("OPENBLAS_NUM_THREADS", ("1",), ("x",)),
        (
            "OMP_PLACES",
            ("cores", "threads(4)", "{0:4}:4:4", "{0,1},{2,3}", "!{5}"),
            ("zzz", "cores()", "a{0}"),
        ),
        ("OMP_PROC_BIND", ("true", "FALSE", "spread, close"), ("yes", "spread close")),
        ("OMP_SCHEDULE", ("dynamic", "guided,4", "nonmonotonic:dynamic, 2"), ("quick", "static,x")),
        ("GOMP_CPU_AFFINITY", ("0 3 1-2 4-15:2", "0,1", ""), ("zzz", "0-", "1:2", "1" * 60 + "x")),
    ],
)
def test_variables_that_openmp_cannot_read_are_dropped(monkeypatch, name, kept, dropped):
    for value in kept + dropped:
        monkeypatch.setenv(name, value)
        cores.drop_impossible()
        assert os.environ.get(name) == (value if value in kept else None), value


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_numba_is_imported_whatever_its_variable_says(value):
    code = "from cntk_bench.system import libraries; libraries.own_process(); import numba"
    environment = os.environ | {"NUMBA_NUM_THREADS": value, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(
    "variable, count, expected",
    [
        (None, 2, ["0", "1"]),
        ("3,5", 2, ["3", "5"]),
        ("GPU-8932, GPU-1244", 2, ["GPU-8932", "GPU-1244"]),
        ("0,-1,1", 1, ["0"]),  # CUDA ignores all entries from the first invalid one on
        ("MIG-a,MIG-b", 1, ["MIG-a", "MIG-b"]),  # CUDA shows a process only one of them
        ("", 0, []),
    ],
)
def test_gpus_are_named_as_the_environment_names_them(monkeypatch, variable, count, expected):
    monkeypatch.setattr(device, "available", lambda: count > 0)
    runtime = SimpleNamespace(getDeviceCount=lambda: count)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert device.devices() == expected


def test_a_scheduler_without_dask_is_refused():
    with pytest.raises(UserError, match="tcp://h:1, but compute.executor is local: use --executor dask"):
        workers.require(compute(executor="local", scheduler="tcp://h:1"))
