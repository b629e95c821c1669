"""The CUDA backend without a GPU: its own kernel sources and host code, run on the CPU.

The emulator (tests/emulator) takes CuPy's place; everything else is what a GPU would run.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from backend_suite import DEPTHS, EVERYTHING, TABLE, BackendSuite, ordinary, readouts, relative_errors

sys.path.insert(0, str(Path(__file__).with_name("emulator")))

from emulated import FORWARD, REVERSED, SHUFFLED, Emulator, compiler  # noqa: E402
from test_cli import call  # noqa: E402

from cntk_bench import backends, gram  # noqa: E402
from cntk_bench.backends.cuda import Backend, Gpu, available  # noqa: E402
from cntk_bench.backends.cuda.zones import zones  # noqa: E402
from cntk_bench.errors import UserError  # noqa: E402
from cntk_bench.kernels.spec import Readout, Spec  # noqa: E402

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="no C++ compiler: set CXX, or install g++, clang++ or the package ziglang"
)


class TestEmulatedCuda(BackendSuite):
    def create(self, spec):
        return Backend(spec, Emulator())


def v_in_float64(x, z, depths):
    """CNTK-V of one pair by an independent, short recursion over displacement 0 alone: arrays (P, P)."""

    def box(a):
        padded = np.pad(a, 1)
        return sum(padded[i : i + len(a), j : j + len(a)] for i in range(3) for j in range(3))

    vx, vz, S = (box((a * b).sum(0)) for a, b in ((x, x), (z, z), (x, z)))
    T, out = S, []
    for depth in range(2, max(depths) + 1):
        n = np.sqrt(vx * vz)
        angle = np.arccos(np.clip(S / n, -1, 1))
        K = n * (np.cos(angle) * (np.pi - angle) + np.sin(angle)) / (9 * np.pi)
        G = (1 - angle / np.pi) / 9 * T + K
        if depth in depths:
            out.append(G.sum())
        S, T, vx, vz = box(K), box(G), box(vx / 9), box(vz / 9)
    return out


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_v_of_real_sizes(channels, size):
    """The images include a repeated one, and two that share half of their pixels."""
    x = ordinary(5, channels, size)
    x[1, :, :, 16:] = x[0, :, :, 16:]
    x[2] = x[0]
    backend = Backend(Spec(readouts(("ntk", "v")), channels, size), Emulator())
    images = backend.prepare(x)
    tile = backend.tile(images, images, symmetric=True)
    wide = x.astype(np.float64)
    for i, j in np.ndindex(5, 5):
        exact = v_in_float64(wide[i], wide[j], DEPTHS)
        assert abs(tile[:, i, j] / exact - 1).max() < 1e-6


def test_the_whole_table_of_one_cifar_sized_pair():
    x = ordinary(2, 3, 32)
    backend = Backend(Spec((*TABLE, *readouts(("nngp", "gap"))), 3, 32), Emulator())
    assert relative_errors(backend, x[:1], x[1:]).max() < 1e-6
    blocks = [blocks for name, blocks in backend.gpu.launches if name == "displacements"]
    assert blocks == [4] * 32  # 32 launches, one for each a, of 32 planes (31 for a = 0), 8 to a block


@pytest.mark.parametrize("chosen", [readouts(("ntk", "v")), readouts(("ntk", "gap"), ("nngp", "gap"))])
def test_a_gpus_approximations_change_little(chosen):
    """Reciprocals and square roots may be off by 2 units in the last place; half of each image is flat."""
    x = ordinary(2, 3, 16)
    x[:, :, :, 8:] = 1.234
    x = np.concatenate([x, x[:1]])

    def error(ulps):
        return relative_errors(Backend(Spec(chosen, 3, 16), Emulator(ulps=ulps)), x, x[:2]).max()

    assert error(2) < 3e-6 < error(10_000)


V_ALONE = readouts(("ntk", "v"), depths=(3, 4))
GAP_AND_NNGP = readouts(("ntk", "gap"), ("nngp", "gap"), depths=(3, 4))
LAP_AND_BOTH_TRAININGS = readouts(
    ("ntk", "lap:1"), ("ntk", "lap:2", "hidden"), ("nngp", "lap:2"), ("ntk", "gap", "all"), depths=(4,)
)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [5, 8, 28, 32])
@pytest.mark.parametrize("chosen", [V_ALONE, GAP_AND_NNGP, LAP_AND_BOTH_TRAININGS], ids=["v", "gap", "lap"])
def test_every_kernel_at_every_size(chosen, size, channels):
    """Results are right and free of races: between barriers, lanes and warps may take turns in any order."""
    x = ordinary(3, channels, size)
    x, z = (x, x[:1]) if chosen is V_ALONE else (x[:1], x[1:2])

    def backend(*order):
        return Backend(Spec(chosen, channels, size), Emulator(*order))

    assert relative_errors(backend(), x, z).max() < 1e-6
    expected = backend().tile(x, z)
    for order in ((REVERSED,), (SHUFFLED, 1), (SHUFFLED, 2)):
        assert (backend(*order).tile(x, z) == expected).all()


ORDERS = [(FORWARD,), (REVERSED,), *((SHUFFLED, seed) for seed in range(1, 6))]


class Changed(Emulator):
    """Runs the kernels with a piece of one kernel's text replaced."""

    def __init__(self, kernel, old, new, *order, **more):
        super().__init__(*order, **more)
        self.kernel, self.old, self.new = kernel, old, new

    def module(self, text, options):
        if f" {self.kernel}(" in text:
            assert self.old in text
            text = text.replace(self.old, self.new)
        return super().module(text, options)


READY = "        const float* ready = shared + (RING > 1 ? ALL_IMAGES - buffer : 0);\n"
COPY = "        if (RING > 1 && left) copy();\n"
SYNC = "        __syncthreads();\n"
MUCH, LITTLE = 228 << 10, 1 << 13  # shared memory for two buffers, or only for one


@pytest.mark.parametrize(
    ("kernel", "shared_bytes", "old", "new"),
    [
        ("displacements", MUCH, SYNC + READY, READY),  # a warp reads before another has finished copying
        ("diagonal", MUCH, SYNC + READY, READY),
        ("diagonal", LITTLE, SYNC + READY, READY),
        # A warp overwrites what another still reads.
        ("displacements", MUCH, SYNC + READY + COPY, READY + COPY + SYNC),
        ("diagonal", MUCH, SYNC + READY + COPY, READY + COPY + SYNC),
        ("diagonal", LITTLE, "__syncthreads();\n            copy();", "copy();"),
        ("displacements", MUCH, "await_copies();\n" + SYNC, SYNC + "await_copies();\n"),
        ("diagonal", LITTLE, "await_copies();\n" + SYNC, SYNC + "await_copies();\n"),
        ("diagonal", MUCH, "await_copies();\n", ""),
    ],
)
def test_a_race_is_noticed(kernel, shared_bytes, old, new):
    """If a barrier or the wait for copies is missing or misplaced, some order gives other numbers."""
    spec = Spec(readouts(("ntk", "v" if kernel == "diagonal" else "gap"), depths=(4,)), 1, 12)
    x = ordinary(3, 1, 12)

    def tile(gpu):
        return Backend(spec, gpu).tile(x, x)

    right = tile(Emulator())
    assert (right == tile(Emulator(SHUFFLED, shared_bytes=shared_bytes))).all()
    changed = (tile(Changed(kernel, old, new, *order, shared_bytes=shared_bytes)) for order in ORDERS)
    assert any((other != right).any() for other in changed)


@pytest.mark.parametrize("order", ORDERS[1:])
@pytest.mark.parametrize(
    ("chosen", "tilings"), [(EVERYTHING, [(2, 2), (2, 1)]), (V_ALONE, [(2, 2), (3, 1)])], ids=["all", "v"]
)
def test_no_race_whatever_the_shared_memory(order, chosen, tilings):
    """Where too few blocks of `diagonal` fit, it uses other tile shapes or a single buffer for images."""
    x = ordinary(7 if chosen is V_ALONE else 3, 2, 6)
    spec = Spec(chosen, 2, 6)
    much, little = Backend(spec, Emulator()), Backend(spec, Emulator(*order, shared_bytes=LITTLE // 4))
    constants = [backend.diagonal.constants for backend in (much, little)]
    assert [(of["TILE"], of["BUFFERS"]) for of in constants] == tilings
    for z, symmetric in ((x[:5], False), (x, True)):
        assert (much.tile(x, z, symmetric) == little.tile(x, z, symmetric)).all()


def test_bits_do_not_depend_on_the_memory():
    x = ordinary(5, 1, 6)
    spec = Spec(EVERYTHING, 1, 6)

    def run(emulator):
        backend = Backend(spec, emulator)
        prepared = backend.prepare(x)
        return backend.tile(prepared, prepared[:4]), backend.tile(prepared, prepared, symmetric=True)

    much, little = Emulator(), Emulator(free_bytes=60_000)
    for expected, actual in zip(run(much), run(little), strict=True):
        assert (expected == actual).all()
    assert len(little.launches) > 3 * len(much.launches)


def test_blocks_are_downloaded_while_what_was_launched_later_runs():
    class Watched(Emulator):
        def download_later(self, array):
            taken = array.copy()  # the numbers so far, which later launches must not change

            def download():
                np.testing.assert_array_equal(array, taken)
                self.launches.append(("download", array.shape[1:]))
                return array

            return download

    gpu = Watched(free_bytes=390_000)  # enough for 3 images at once
    backend = Backend(Spec(readouts(("ntk", "v")), 1, 8), gpu)
    x = ordinary(5, 1, 8)
    images = backend.prepare(x)
    assert backend._side() == 3
    tile = backend.tile(images, images, symmetric=True)
    order = [name for name, _ in gpu.launches if name in ("diagonal", "download")]
    assert order == ["diagonal"] * 3 + ["download"] * 3
    gpu.launches.clear()
    one, other = backend.start(images, images), backend.start(images[:2], images)
    assert "download" not in dict(gpu.launches)
    assert (other() == one()[:, :2]).all()
    whole = Backend(backend.spec, Emulator())
    assert (tile == whole.tile(images, images, symmetric=True)).all()
    assert backend.tile(images[:0], images).shape == (5, 0, 5)


def test_v_alone_runs_one_plane():
    gpu = Emulator()
    backend = Backend(Spec(readouts(("ntk", "v")), 1, 8), gpu)
    images = backend.prepare(ordinary(4, 1, 8))
    backend.tile(images, images)
    assert [name for name, _ in gpu.launches] == ["deviations", "deviations", "diagonal", "read_diagonal"]
    gpu.launches.clear()
    backend.tile(images, images, symmetric=True)
    assert ("diagonal", 3) in gpu.launches  # those of 2 x 2 tiles that are on or below the diagonal


def test_zones_are_rings_with_what_their_pools_need():
    lap, gap = Readout("ntk", "lap:1", 5, "all"), Readout("ntk", "gap", 5)
    middle, inner, outer = zones(Spec((gap, lap), 3, 32))
    assert middle.displacements == (0,) and middle.trainings == ("hidden", "all")
    assert len(inner.displacements) == 5**2 - 1 and inner.trainings == ("hidden", "all")
    assert len(outer.displacements) == 32**2 - 5**2 and outer.trainings == ("hidden",)
    assert tuple(map(str, inner.windows)) == ("lap:1",) and outer.windows == ()


@pytest.mark.parametrize(
    ("kib", "v", "table"),
    [(64, (3, 1), (2, 1)), (100, (2, 1), (2, 1)), (164, (2, 1), (2, 1)), (228, (2, 2), (2, 2))],
)
def test_tilings_of_the_chips(kib, v, table):
    """Shared memory of sm_75; sm_86 and sm_89; sm_80; sm_90. Four images of 32 x 32 pixels take 36 KiB."""
    of_v, of_table = (zones(Spec(chosen, 3, 32))[0] for chosen in (V_ALONE, TABLE))
    assert of_v.stage_bytes == 9 << 10
    assert (of_v.tiling(kib << 10), of_table.tiling(kib << 10)) == (v, table)


def test_tiles_under_way_share_images():
    """256 consecutive tiles are 16 x 16 neighbours, so their images fit into the GPU's cache."""
    backend = Backend(Spec(V_ALONE, 1, 4), Emulator())
    for half in (True, False):
        pairs, tiles = backend._lists_of(96, 96, half)
        assert len(np.unique(tiles, axis=0)) == len(tiles) == (48 * 49 // 2 if half else 48**2)
        assert len(pairs) == (96 * 97 // 2 if half else 96**2)
    for side in (0, 1):
        assert all(len(np.unique(tiles[k : k + 256, side])) == 16 for k in range(0, len(tiles), 256))


def test_large_images_are_refused():
    with pytest.raises(UserError, match="33 x 33.*--backend cpu"):
        Backend(Spec(TABLE, 3, 33), Emulator())


def test_auto_computes_large_images_on_the_cpu_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(backends.module("cuda"), "available", lambda: True)
    dense = Readout("fc-ntk", "", 3, None)
    assert backends.choose("auto", Spec((*TABLE, dense), 3, 32)) == "cuda"
    assert backends.choose("auto", Spec((dense,), 3, 33)) == "cuda"
    assert backends.choose("cuda", Spec(TABLE, 3, 33)) == "cuda" and not caplog.messages  # `create` refuses
    assert backends.choose("auto", Spec((*TABLE, dense), 3, 33)) == "cpu"
    told = "computing on the backend cpu: cuda takes images of up to 32 x 32 pixels, not 33 x 33"
    assert caplog.messages == [told]
    found = gram(np.ones((2, 1, 33, 33)), readouts=[Readout("ntk", "v", 2)])
    np.testing.assert_array_equal(found[0], found[0, 0, 0])
    assert caplog.messages == [told, told]


def test_commands_compute_large_images_on_the_cpu(monkeypatch, tmp_path):
    monkeypatch.setattr(backends.module("cuda"), "available", lambda: True)
    images = np.random.default_rng(0).normal(size=(8, 33, 33)).astype("f4")
    np.savez(
        tmp_path / "large.npz", x_train=images, y_train=np.arange(8) % 2, x_test=images, y_test=[0, 1] * 4
    )
    (tmp_path / "large.yaml").write_text(
        f"dataset: {{name: npz, path: {tmp_path}/large.npz}}\nkernel: {{columns: [CNTK-V], depths: [2]}}\n"
    )
    asked = tmp_path / "large.yaml", "-o", tmp_path / "run"
    for command in ("plan", "compute"):
        done = call(command, *asked)
        assert done.returncode == 0 and "cuda takes images of up to 32 x 32 pixels" in done.stderr, (
            done.stderr
        )
        assert done.stderr.count("\n") == 1
    assert call("compute", *asked).stderr == ""  # a run goes on where it was begun
    timed = call(
        "bench", "--columns", "CNTK-V", "--depths", 2, "--size", 33, "--seconds", 0.01, "--scratch", tmp_path
    )
    assert timed.returncode == 0 and " cpu: " in timed.stdout and "33 x 33" in timed.stderr


def test_without_cupy_the_extras_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert not available()
    with pytest.raises(
        UserError, match=r"cannot import CuPy.*pip install 'cntk-bench\[cuda13\]'.*cuda12.*--backend cpu"
    ):
        Gpu()


def fake_cupy(monkeypatch, found=True, capability="90", nvrtc=lambda: (13, 0)):
    cuda = SimpleNamespace(
        is_available=lambda: found,
        Device=lambda: SimpleNamespace(compute_capability=capability),
        nvrtc=SimpleNamespace(getVersion=nvrtc),
        Stream=lambda **_: None,
    )
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))


def test_without_a_usable_gpu_one_line_says_why(monkeypatch):
    fake_cupy(monkeypatch, found=False)
    with pytest.raises(UserError, match="no NVIDIA GPU.*--backend cpu"):
        Gpu()
    fake_cupy(monkeypatch, capability="70")
    with pytest.raises(UserError, match="7.5 or newer, this one has 7.0.*--backend cpu"):
        Gpu()

    def missing():
        raise OSError("libnvrtc.so.13: cannot open shared object file")

    fake_cupy(monkeypatch, nvrtc=missing)
    with pytest.raises(UserError, match="cannot load NVRTC.*libnvrtc.so.13.*pip install .*cuda13"):
        Gpu()
    fake_cupy(monkeypatch)
    Gpu()


def test_a_full_gpu_is_the_users_to_mend():
    class Full(Emulator):
        def empty(self, shape, dtype):
            raise MemoryError("Out of memory allocating 1,024 bytes")

    backend = Backend(Spec(readouts(("ntk", "v")), 1, 4), Full())
    images = backend.prepare(ordinary(1, 1, 4))
    with pytest.raises(UserError, match="memory is full.*1,024 bytes"):
        backend.tile(images, images)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("first != seam", "true"),  # the column seam left of a lane's columns
        ("last != seam", "true"),  # the column seam between them
        ("last + 1 != seam", "true"),  # the column seam right of them
        ("return open[i];", "return 1;"),  # the row seam
        ("weights + a * P", "weights"),  # LAP's weights of the row
        ("k0 = NINTH - k0;", ""),  # negative correlations
        ("(P - a) % 2", "0"),  # a seam within a pair of rows
    ],
)
def test_a_broken_kernel_is_noticed(old, new):
    """With broken mathematics the results are wrong, so the emulator runs the text that it is given."""

    chosen = readouts(("ntk", "lap:1"), ("ntk", "gap"), depths=(3, 4))
    x = ordinary(2, 1, 6)
    broken = Backend(Spec(chosen, 1, 6), Changed("displacements", old, new))
    assert relative_errors(broken, x).max() > 1e-4


def test_kernels_that_hang_a_gpu_are_reported():
    text = """
    extern "C" __global__ void early(float* out) { if (threadIdx.x < 40) __syncthreads(); }
    extern "C" __global__ void alone(float* out) { if (threadIdx.x < 7) out[0] = __shfl_sync(~0u, 1.0f, 0); }
    """
    launch = Emulator().module(text, ())
    with pytest.raises(RuntimeError, match="early: some threads .* __syncthreads"):
        launch("early", 1, 64, (np.zeros(1, np.float32),))
    with pytest.raises(RuntimeError, match="alone: some lanes .* shuffle"):
        launch("alone", 1, 32, (np.zeros(1, np.float32),))
