"""Make tests/fixtures/*.npz: kernels of small images, computed by neural-tangents in float64.

neural-tangents (Novak et al. 2020) derives its kernels layer by layer, independently of this
package, and is no dependency of it. It needs an environment of its own (Python 3.11):

    pip install jax==0.4.30 jaxlib==0.4.30 ml-dtypes opt-einsum frozendict typing-extensions
    pip install --no-deps neural-tangents==0.6.5
    python scripts/make_fixtures.py             # or the names of some sets: fully-connected

It takes two minutes on a CPU. Each file holds one set of eight images (for fully connected kernels either
vectors, with C = d and P = 1, or images, which are flattened):

    images    float32 (8, C, P, P)
    names     str (8,)              what each image is there for, see `make_images`
    readouts  str (R,)              "kernel pool train depth", as in `cntk_bench.Readout`; of fully connected
                                    kernels their names, such as fc-ntk-3-b0.1
    values    float64 (R, 8, 8)     on Arora's scale
    versions  str                   of the libraries that computed them

Where neural-tangents is exact, and where it is not (measured):

- Zero variance: it returns the right zeros, no NaN. Its NNGP kernel vanishes at such pixels, and
  its arctan2(0, 0) is replaced by pi/2.
- Identical images: it takes the angle from sqrt(v v' - S^2), where one rounding of S costs 1e-8.
  With arbitrary float64 pixels its CNTK-V ("all") of an image with itself misses the closed form
  d/9 sum_p v_{d-2}[p] by up to 3.2e-8 (C = 3, P = 8, d = 21). So the pixels here are multiples
  of 1/256: every sum of the first layer is then exact in any order, and the miss is at most
  4e-15. No entry has to be left out or loosened.
"""

import sys
import types
from pathlib import Path

import jax
import numpy as np

experimental = types.ModuleType("neural_tangents.experimental")
experimental.__path__ = []  # wants absl and TensorFlow; unused here
sys.modules[experimental.__name__] = experimental

import neural_tangents as nt  # noqa: E402
from neural_tangents import stax  # noqa: E402

FULLY_CONNECTED = {"fully-connected-vectors": (13, 1), "fully-connected-images": (3, 6)}
SETS = {"c1p5": (1, 5), "c3p6": (3, 6), "c3p8": (3, 8)}  # name: channels, size
DEPTHS = (3, 4, 6, 11, 21)
POOLS = ("v", "gap", "lap:1", "lap:2")
TRAININGS = (("ntk", "all"), ("ntk", "hidden"), ("nngp", "all"))
FOLDER = Path(__file__).resolve().parent.parent / "tests" / "fixtures"


def make_images(channels, size, seed):
    """Named images (C, P, P): ordinary, identical, negated and partly or almost all zero ones."""
    rng = np.random.default_rng(seed)

    def noise(height=size, width=size):
        return np.round(256 * rng.standard_normal((channels, height, width))) / 256

    ordinary, background = noise(), noise(1, 1) * np.ones((1, size, size))
    single = np.zeros((channels, size, size))
    single[:, :1, :1] = noise(1, 1)
    top, bottom = background.copy(), background.copy()
    top[:, :2, :2], bottom[:, -2:, -2:] = noise(2, 2), noise(2, 2)
    border = noise()
    border[:, :, :3] = 0
    return {
        "ordinary": ordinary,
        "other": noise(),
        "identical to the first": ordinary,
        "first negated": -ordinary,
        "one pixel not zero": single,
        "flat, object top left": top,
        "same flat, object bottom right": bottom,
        "zero border, with pixels of zero variance": border,
    }


def make_vectors(features, seed):
    """Named vectors (d, 1, 1): ordinary, identical, negated, parallel, nearly parallel, and zero."""
    rng = np.random.default_rng(seed)
    first, other = (np.round(256 * rng.standard_normal((features, 1, 1))) / 256 for _ in range(2))
    one = np.zeros_like(first)
    one[0] = 1
    return {
        "ordinary": first,
        "other": other,
        "identical to the first": first,
        "first negated": -first,
        "four times the first": 4 * first,
        "nearly the first": first + one / 256,
        "one number not zero": one,
        "zero": 0 * first,
    }


def network(pool, depth, channels, size):
    """Body and head of a network, lists of layers, and what its kernel is multiplied by."""
    body = [stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5), stax.Relu()] * (depth - 1)
    if pool == "gap":
        return body, [stax.GlobalAvgPool()], channels
    c = 0 if pool == "v" else int(pool.removeprefix("lap:"))
    head = [stax.AvgPool((2 * c + 1, 2 * c + 1), (1, 1), "SAME"), stax.Flatten()]
    return body, head, channels * size**2  # neural-tangents averages over channels and flattened pixels


def hidden_kernel(body, head):
    """The NTK of the hidden layers: without the first layer's tangents, and with no last layer to train."""

    def ntk(x, z):
        first = stax.serial(body[0])[2](x, z)
        return stax.serial(*body[1:], *head)[2](first.replace(ntk=0 * first.nngp)).ntk

    return ntk


def kernel(images, kind, pool, train, depth):
    """Gram matrix (n, n), on Arora's scale, of images (n, C, P, P)."""
    body, head, scale = network(pool, depth, *images.shape[1:3])
    x = images.transpose(0, 2, 3, 1)  # channels last
    if kind == "nngp":
        result = stax.serial(*body, *head)[2](x, x, "nngp")
    elif train == "all":
        result = stax.serial(*body, *head, stax.Dense(1, W_std=1))[2](x, x, "ntk")
    else:
        result = hidden_kernel(body, head)(x, x)
    return scale * np.asarray(result)


def dense(x, kind, depth, beta, fixed):
    """Gram matrix (n, n) of fully connected networks with `depth` Dense layers, of vectors x (n, d)."""
    kernel = None
    for layer in range(1, depth + 1):
        weights = stax.Dense(1, W_std=1 if layer == 1 else 2**0.5, b_std=beta)
        if kernel is None:
            kernel = weights[2](x, x)
        else:
            kernel = stax.serial(stax.Relu(), weights)[2](kernel)
        if layer <= fixed:  # none of the layers up to this one is trained
            kernel = kernel.replace(ntk=0 * kernel.nngp)
    return np.asarray(kernel.ntk if kind == "fc-ntk" else kernel.nngp)


def fully_connected(channels, size):
    """Named inputs, and kernels at several depths, biases and numbers of fixed layers, by their names."""
    inputs = make_vectors(channels, 1) if size == 1 else make_images(channels, size, seed=channels)
    x = np.stack(list(inputs.values())).reshape(len(inputs), -1)
    values = {}
    for depth in (1, 2, 3, 6, 21):
        for beta in (0, 0.1, 1.5):
            bias = f"-b{beta}" if beta else ""
            values[f"fc-nngp-{depth}{bias}"] = dense(x, "fc-nngp", depth, beta, 0)
            for fixed in sorted({0, 1, depth // 2, depth - 1} & set(range(depth))):
                name = f"fc-ntk-{depth}{bias}" + (f"-f{fixed}" if fixed else "")
                values[name] = dense(x, "fc-ntk", depth, beta, fixed)
    return inputs, values


def main():
    jax.config.update("jax_enable_x64", True)
    readouts = [(kind, pool, train, depth) for depth in DEPTHS for pool in POOLS for kind, train in TRAININGS]
    FOLDER.mkdir(exist_ok=True)
    chosen = sys.argv[1:] or [*SETS, "fully-connected"]
    for name, (channels, size) in SETS.items():
        if name in chosen:
            images = make_images(channels, size, seed=size)
            x = np.stack(list(images.values()))
            names = [" ".join(map(str, readout)) for readout in readouts]
            save(name, x, list(images), names, [kernel(x, *readout) for readout in readouts])
    for name, (channels, size) in FULLY_CONNECTED.items() if "fully-connected" in chosen else ():
        inputs, values = fully_connected(channels, size)
        save(name, np.stack(list(inputs.values())), list(inputs), list(values), list(values.values()))


def save(name, x, names, readouts, values):
    assert (x == x.astype(np.float32)).all()
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        images=x.astype(np.float32),
        names=np.array(names),
        readouts=np.array(readouts),
        values=np.array(values),
        versions=f"neural-tangents {nt.__version__}, jax {jax.__version__}, numpy {np.__version__}",
    )
    print(FOLDER / f"{name}.npz", flush=True)


if __name__ == "__main__":
    main()
