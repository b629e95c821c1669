"""Fully connected kernels against their definition: on the CPU, on CUDA's emulator, and on a GPU."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from golden import digest

from cntk_bench import gram, reference
from cntk_bench.backends import cpu, create, cuda, families, fully_connected
from cntk_bench.backends.cuda import fully_connected as cuda_fully_connected
from cntk_bench.backends.cuda import sources as cuda_sources
from cntk_bench.errors import UserError
from cntk_bench.kernels.pool import KINDS, Kind, Pool
from cntk_bench.kernels.spec import CONVOLUTIONAL, FULLY_CONNECTED, Readout, Spec

sys.path.insert(0, str(Path(__file__).with_name("emulator")))

from emulated import FORWARD, REVERSED, SHUFFLED, Emulator, compiler  # noqa: E402

FIXTURES = Path(__file__).parent / "fixtures"
EVERYTHING = tuple(
    Readout(kernel, "", depth, bias=bias, fixed=fixed)
    for bias in (0.3, 0.0, 1.5)
    for kernel, depth, fixed in (
        *(("fc-ntk", 21, 0), ("fc-ntk", 3, 0), ("fc-ntk", 3, 2), ("fc-nngp", 6, 0), ("fc-ntk", 1, 0)),
        *(("fc-ntk", 6, 1), ("fc-nngp", 1, 0), ("fc-ntk", 6, 4), ("fc-ntk", 6, 5), ("fc-nngp", 21, 0)),
    )
)
SOME = EVERYTHING[:5]


def vectors(n, features, seed=0):
    return np.random.default_rng(seed).standard_normal((n, features, 1, 1)).astype(np.float32)


@pytest.fixture(params=["cpu", "cuda", "gpu"])
def make(request):
    """A function from a spec to a backend; "cuda" is the emulator."""
    if request.param == "cpu":
        return cpu.FullyConnected
    if request.param == "gpu":
        if not cuda.available():
            pytest.skip("no CuPy, or no NVIDIA GPU")
        return cuda.FullyConnected
    if compiler() is None:
        pytest.skip("no C++ compiler")
    return lambda spec: cuda.FullyConnected(spec, Emulator())


def computed(make, readouts, x, z=None):
    backend = make(Spec(tuple(readouts), *x.shape[1:3]))
    one = backend.prepare(x)
    return backend.tile(one, one if z is None else backend.prepare(z), symmetric=z is None)


def assert_exact(K, x, readouts, z=None, allowed=1e-6):
    """Errors are relative to the entry or, where terms cancel, to 1 % of the readout's largest entry."""
    exact = reference.gram(x, z, readouts=readouts)
    assert K.shape == exact.shape and K.dtype == np.float32
    floor = 0.01 * abs(exact).max((1, 2), keepdims=True)
    assert (abs(K - exact) <= allowed * np.maximum(abs(exact), floor)).all()


@pytest.mark.parametrize(("n", "channels", "size"), [(5, 3, 4), (19, 1, 1), (18, 37, 1), (3, 3, 32)])
def test_every_readout_from_one_pass(make, n, channels, size):
    x = np.random.default_rng(n).standard_normal((n, channels, size, size)).astype(np.float32)
    assert_exact(computed(make, EVERYTHING, x), x, EVERYTHING, allowed=1e-7)
    assert_exact(computed(make, SOME, x, x[:2]), x, SOME, x[:2], allowed=1e-7)


@pytest.mark.parametrize("name", ["vectors", "images"])
def test_neural_tangents(make, name):
    """The definition's fixtures, here compared up to float32 rounding."""
    with np.load(FIXTURES / f"fully-connected-{name}.npz", allow_pickle=False) as fixture:
        x, values = fixture["images"], fixture["values"]
        chosen = [Readout.parse(str(readout)) for readout in fixture["readouts"]]
    K = computed(make, chosen, x)
    own = np.sqrt(np.einsum("rii->ri", values))
    assert (abs(K - values) <= 1e-7 * abs(values) + 1e-15 * own[:, :, None] * own[:, None]).all()


def test_a_vector_with_itself_is_exact(make):
    """c is 1 to the last bit for any number of features, so Theta is a sum that is rounded once."""
    x = vectors(4, 1000)
    x[1], x[2], x[3] = x[0], 8 * x[0], -x[0]
    square = np.float64((x[0].astype("f8") ** 2).sum() / 1000)
    sigma, theta = computed(make, [Readout("fc-nngp", "", 21), Readout("fc-ntk", "", 21)], x)
    factor = np.array([1, 1, 8])
    expected = square * factor[:, None] * factor
    np.testing.assert_allclose(sigma[:3, :3], expected, rtol=2e-7)
    np.testing.assert_allclose(theta[:3, :3], 21 * expected, rtol=2e-7)
    assert (sigma[0, :2] == sigma[0, 0]).all() and (theta[1, :2] == theta[0, 0]).all()


def test_nearly_parallel_vectors(make):
    """Near c = 1, rounding c changes an angle by 1e-8; still, depth 21 must be right within 1e-6.

    The expected value takes its first angle from |x/|x| - z/|z||, and every later one from the angle before.
    """
    rng = np.random.default_rng(1)
    x = vectors(1, 200)
    sizes = np.logspace(-7, -1, 25)
    z = np.array([f * (x[0] + s * rng.standard_normal(x[0].shape)) for f in (1, 3) for s in sizes])
    z = z.astype(np.float32)
    (theta,) = computed(make, [Readout("fc-ntk", "", 21)], x, z)
    a, b = (v.reshape(len(v), -1).astype("g") for v in (x, z))
    lengths = np.sqrt((a**2).sum(1)), np.sqrt((b**2).sum(1))
    chord = np.sqrt(((a / lengths[0][:, None] - b / lengths[1][:, None]) ** 2).sum(1))
    angle, n = 2 * np.arcsin(chord / 2), lengths[0] * lengths[1] / 200
    T = n * np.cos(angle)
    for _ in range(20):
        k0 = 1 - angle / np.pi
        # pi (cos - k1), without subtracting k1 from c, which would cancel.
        lost = angle * np.cos(angle) - np.sin(angle)
        gap = 2 * np.sin(angle / 2) ** 2 + lost / np.pi  # 1 - k1
        T = k0 * T + n * (1 - gap)
        angle = 2 * np.arcsin(np.sqrt(np.maximum(gap, 0) / 2))
    assert (abs(theta[0] / T.astype("f8") - 1) < 1e-6).all()


def test_zero_vectors(make):
    x = vectors(3, 5)
    x[1] = 0
    K = computed(make, EVERYTHING, x)
    assert_exact(K, x, EVERYTHING)
    without = [number for number, r in enumerate(EVERYTHING) if r.bias == 0]
    assert (K[without, 1] == 0).all() and (K[without][:, :, 1] == 0).all()


@pytest.mark.parametrize("scale", [1e-18, 1e-12, 1e-3, 1e9, 1e18])
def test_huge_and_tiny_values(make, scale):
    """Kernels with bias are not homogeneous, so scaling all images would not do."""
    x = vectors(5, 7)
    x[1:3] *= np.float32(scale)
    x[3] *= np.float32(1e-3)
    assert_exact(computed(make, EVERYTHING, x), x, EVERYTHING, allowed=1e-6)


def test_values_that_float32_cannot_hold_are_refused(make):
    x = vectors(3, 4)
    bias = [Readout("fc-ntk", "", 3, bias=0.5)]
    for scale, words in ((1e-20, "scale the images up"), (1e20, "scale the images down")):
        with pytest.raises(
            UserError, match=f"fc-ntk-3 of row 0, column 0 is .* float32 cannot hold.*{words}"
        ):
            computed(make, [Readout("fc-ntk", "", 3)], x * np.float32(scale))
    tiny = computed(make, bias, x * np.float32(1e-20))  # only beta^2 is left, a constant
    np.testing.assert_allclose(tiny, (1 + 2 + 3) * 0.25, rtol=1e-7)
    # As float64, x and z are each out of float32's range, but their product is not.
    dim, bright = x.astype("f8") * 1e-60, x[:1].astype("f8") * 1e38
    with pytest.raises(UserError, match=r"is [\d.]+e-1\d\d, which float32 cannot hold"):
        computed(make, [Readout("fc-ntk", "", 3)], dim)
    with pytest.raises(UserError, match="scale the images up"):
        computed(make, [Readout("fc-nngp", "", 2)], x.astype("f8") * 1e-300, x)
    K = computed(make, [Readout("fc-ntk", "", 3)], x.astype("f8") * 1e-25, bright)
    assert_exact(K, x.astype("f8") * 1e-25, [Readout("fc-ntk", "", 3)], bright)


def test_bits_do_not_depend_on_tile_threads_or_company(make, monkeypatch):
    x, z = vectors(37, 41), vectors(50, 41, seed=1)
    whole = computed(make, EVERYTHING, x, z)
    for rows, columns in (
        (slice(3, 4), slice(17, 18)),
        (slice(0, 20), slice(9, 50)),
        (slice(30, 37), slice(0, 1)),
    ):
        assert (computed(make, EVERYTHING, x[rows], z[columns]) == whole[:, rows, columns]).all()
    for readouts in (EVERYTHING[7:8], EVERYTHING[::-3]):
        alone = computed(make, readouts, x, z)
        assert all(
            (plane == whole[EVERYTHING.index(r)]).all() for plane, r in zip(alone, readouts, strict=True)
        )
    monkeypatch.setattr(cpu.fully_connected, "threads", lambda: 7)
    monkeypatch.setattr(cuda_fully_connected, "BLOCK", 16)
    assert (computed(make, EVERYTHING, x, z) == whole).all()
    half = computed(make, EVERYTHING, x)
    lower = np.tril_indices(len(x))
    assert (half == half.swapaxes(1, 2)).all()
    assert (half[:, *lower] == computed(make, EVERYTHING, x, x)[:, *lower]).all()


def golden():
    """(x, K): vectors and readouts of many kinds, and the kernels that the CPU computes for them."""
    x = vectors(6, 50)
    x[1], x[2], x[3], x[4] = x[0] + np.float32(1e-4), -x[0], 1e5 * x[3], 0
    return x, computed(cpu.FullyConnected, EVERYTHING, x)


def instructions():
    """(version of NVRTC, digest of the PTX of kernels_cuda/fully_connected.cu)."""
    from cupy.cuda import nvrtc

    defines = cuda_sources.options("fully_connected", {"SIDE": cuda_fully_connected.SIDE, "STATES": 4})
    program = nvrtc.createProgram(cuda_sources.text("fully_connected"), "fully_connected.cu", [], [])
    nvrtc.compileProgram(program, [*defines, "-arch=compute_90"])
    text = nvrtc.getPTX(program).decode()
    nvrtc.destroyProgram(program)
    return np.array(nvrtc.getVersion()), digest(text)


def test_the_instructions_of_cuda():
    pytest.importorskip("cupy", reason="no CuPy: install the extra [test]")
    with np.load(FIXTURES / "golden-fully-connected.npz") as kept:
        try:
            version, found = instructions()
        except Exception as error:  # a library that cannot be loaded may raise anything
            pytest.skip(f"no NVRTC ({error})")
        if (version != kept["nvrtc"]).any():
            pytest.skip("another version of NVRTC orders instructions in another way")
        assert found == str(kept["ptx"]), "raise fully_connected.NUMERICS; scripts/make_golden.py"


def test_the_bits_of_the_cpu():
    """Numerics version 1 has the same bits on every CPU: products are exact, the order of sums is fixed."""
    assert fully_connected.NUMERICS == 1
    with np.load(FIXTURES / "golden-fully-connected.npz") as kept:
        assert (golden()[1] == kept["K"]).all(), "raise fully_connected.NUMERICS; scripts/make_golden.py"
        exact = reference.gram(golden()[0], readouts=EVERYTHING)
        assert (abs(kept["K"] - exact) <= 1e-6 * np.maximum(abs(exact), 1e-3)).all()


def test_cuda_and_cpu_agree():
    if compiler() is None:
        pytest.skip("no C++ compiler")
    x, K = golden()
    other = computed(lambda spec: cuda.FullyConnected(spec, Emulator()), EVERYTHING, x)
    np.testing.assert_allclose(other, K, rtol=1.2e-7, atol=1e-9)


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
def test_no_race_and_the_barriers_are_needed():
    class Changed(Emulator):
        def module(self, text, options):
            assert text.count("        __syncthreads();\n") == 2
            return super().module(text.replace("        __syncthreads();\n", "", 1), options)

    x = vectors(20, 70)
    orders = [(FORWARD,), (REVERSED,), *((SHUFFLED, seed) for seed in range(1, 4))]

    def tiles(emulator):
        makers = [partial(cuda.FullyConnected, gpu=emulator(*order)) for order in orders]
        return [computed(maker, SOME, x) for maker in makers]

    first, *others = tiles(Emulator)
    assert all((other == first).all() for other in others)
    assert any((other != first).any() for other in tiles(Changed))


def test_backends_without_fully_connected_kernels_say_so(monkeypatch):
    monkeypatch.delattr(cpu, "FullyConnected")
    with pytest.raises(UserError, match="backend 'cpu' has no fully connected kernels"):
        create("cpu", Spec(SOME, 3, 1))
    create("cpu", Spec((Readout("ntk", "v", 3),), 3, 2))


# Flips, and specs with several families of kernels.

MIXED = (
    Readout("ntk", "gap", 3, flip=True),
    Readout("fc-ntk", "", 3, bias=0.1),
    Readout("ntk", "v", 4),
    Readout("fc-ntk", "", 3, bias=0.1, flip=True),
    Readout("nngp", "lap:1", 3, flip=True),
    Readout("ntk", "gap", 3),
    Readout("fc-nngp", "", 2, flip=True),
)


def images(n, channels=2, size=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, channels, size, size)).astype(np.float32)


def flipped(x):
    return np.ascontiguousarray(x[..., ::-1])


@pytest.mark.parametrize("chosen", [MIXED, MIXED[:1], MIXED[3:4], MIXED[::-1]], ids=len)
def test_a_mixed_spec(chosen):
    x, z = images(3), images(4, seed=1)
    z[1], z[2] = flipped(x[0]), x[1] + flipped(x[1])
    z[3] = -x[2]
    for others in (z, None):
        assert_exact(gram(x, others, readouts=chosen, backend="cpu"), x, chosen, others)


def test_a_flip_is_the_mean_over_mirror_images():
    """The expected mean uses only the definition's plain kernels; mirroring up and down gives another one."""
    x, z = images(3), images(2, seed=1)
    plain = [r.plain for r in MIXED]
    one, other = (reference.gram(x, b, readouts=plain) for b in (z, flipped(z)))
    upside_down = reference.gram(x, z[:, :, ::-1], readouts=plain)
    found = reference.gram(x, z, readouts=MIXED)
    for r, K, a, b, c in zip(MIXED, found, one, other, upside_down, strict=True):
        np.testing.assert_array_equal(K, (a + b) / 2 if r.flip else a)
        assert not np.allclose(K, (a + c) / 2, rtol=1e-3)


def test_parts_have_the_bits_that_they_have_alone():
    """Each family's bits do not depend on the others being computed, nor a plain readout's on its flip."""
    x, z = images(5), images(6, seed=1)
    whole = gram(x, z, readouts=MIXED, backend="cpu")
    dense = gram(x, z, readouts=[MIXED[1], MIXED[6].plain], backend="cpu")
    assert (whole[1] == dense[0]).all()
    plain = gram(x, z, readouts=[MIXED[0].plain, MIXED[2], MIXED[4].plain], backend="cpu")
    assert (whole[5] == plain[0]).all() and (whole[2] == plain[1]).all()
    mirrored = gram(x, flipped(z), readouts=[MIXED[0].plain, MIXED[4].plain], backend="cpu")
    for place, k in ((0, 0), (4, 1)):
        mean = (plain[2 * k].astype("f8") + mirrored[k]) / 2
        assert (whole[place] == mean.astype("f4")).all()


def test_flips_share_the_pass_of_the_plain_kernel():
    """K(x, z) is computed once for plain and averaged readouts, K(x, flip z) only for averaged ones."""
    specs, calls = [], []

    class Counted(cpu.Backend):
        def __init__(self, spec):
            specs.append(spec)
            super().__init__(spec)

        def start(self, x, z, symmetric=False):
            calls.append([str(r) for r in self.spec.readouts])
            return super().start(x, z, symmetric)

    makers = {CONVOLUTIONAL: Counted, FULLY_CONNECTED: cpu.FullyConnected}

    def tile(readouts):
        specs.clear(), calls.clear()
        backend = families.create(Spec(tuple(readouts), 2, 5), makers)
        x = backend.prepare(images(3))
        return backend.start(x, x, symmetric=True)()

    tile(MIXED)
    assert calls == [
        ["ntk-gap-3-hidden", "ntk-v-4-all", "nngp-lap1-3"],
        ["ntk-gap-3-hidden", "nngp-lap1-3"],
    ]
    tile((MIXED[0], MIXED[5]))
    assert len(specs) == 1 and calls == [["ntk-gap-3-hidden"]] * 2
    tile((MIXED[5], MIXED[2]))
    assert len(calls) == 1


def test_pools_that_tell_left_from_right_have_no_flip(monkeypatch):
    for pool in ("v", "gap", "lap:1", "lap:3"):
        assert Pool.parse(pool).is_mirrored(5)
    left = Kind(lambda size, _: np.eye(size, dtype=np.int64) * np.arange(size), lambda size, _: 1)
    monkeypatch.setitem(KINDS, "left", left)
    gram(images(2), readouts=[Readout("ntk", "left", 3)], backend="cpu")
    with pytest.raises(UserError, match="pool 'left' tells left from right: its kernels have no flip"):
        gram(images(2), readouts=[Readout("ntk", "left", 3, flip=True)], backend="cpu")


def test_flipped_tiles_are_symmetric_and_do_not_depend_on_their_place():
    x = images(7)
    whole = gram(x, readouts=MIXED, backend="cpu")
    assert (whole == whole.swapaxes(1, 2)).all()
    below = gram(x[4:], x[:4], readouts=MIXED, backend="cpu")
    assert (below == whole[:, 4:, :4]).all()
    assert (gram(x[2:5], readouts=MIXED, backend="cpu") == whole[:, 2:5, 2:5]).all()


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
def test_a_mixed_spec_on_cuda():
    makers = {
        CONVOLUTIONAL: lambda spec: cuda.Backend(spec, Emulator()),
        FULLY_CONNECTED: lambda spec: cuda.FullyConnected(spec, Emulator()),
    }
    backend = families.create(Spec(MIXED, 2, 5), makers)
    x, z = images(3), images(2, seed=1)
    one, other = backend.prepare(x), backend.prepare(z)
    assert_exact(backend.tile(one, other), x, MIXED, z)
    K = backend.tile(one, one, symmetric=True)
    assert_exact(K, x, MIXED)
    assert (K == K.swapaxes(1, 2)).all() and backend.limit() is None
    assert backend.tile_bytes(16) > 0 and len(backend.source) == 64


def test_the_limit_of_flips_on_cuda():
    if compiler() is None:
        pytest.skip("no C++ compiler")

    def limit(*readouts):
        makers = {CONVOLUTIONAL: lambda spec: cuda.Backend(spec, Emulator())}
        return families.create(Spec(readouts, 2, 5), makers).limit()

    assert limit(MIXED[0], MIXED[5]) == pytest.approx(limit(MIXED[5]) / 2)


def test_a_mean_that_float32_cannot_hold_is_refused():
    """K(x, z) = 0, and K(x, flip z) is at the lower end of float32's range: their mean is below it."""
    x, z = np.zeros((2, 1, 1, 2, 2), np.float32)
    x[0, 0, :, 0] = 1.2e-19
    linear = Readout("fc-ntk", "", 1)
    z[0, 0, :, 1] = 4 * 0.6 * np.finfo(np.float32).tiny / x[0, 0, 0, 0]
    assert (gram(x, flipped(z), readouts=[linear], backend="cpu") > 0).all()
    with pytest.raises(UserError, match="fc-ntk-1-flip of row 0, column 0 is .*scale the images up"):
        gram(x, z, readouts=[Readout("fc-ntk", "", 1, flip=True)], backend="cpu")
