"""Where the recursions run: a backend prepares images once, then computes tiles of kernels.

To add a backend, write a module with `available()`, `NUMERICS`, `TILE_WORK` and a class that follows
`Backend`, of plain convolutional readouts, and add its name to `NAMES`; or register the module from another
package under the entry point group `cntk_bench.backends`. A second class in it, `FullyConnected`, computes
plain fully connected readouts. Flips and specs of several families are put together in `families`. "auto"
takes only backends of our own.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from cntk_bench.backends import families, fully_connected, scaling
from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import CONVOLUTIONAL, FULLY_CONNECTED, Spec
from cntk_bench.system import libraries, plugins

NAMES = ("cuda", "cpu")  # in order of preference
GROUP = "cntk_bench.backends"


class Backend(Protocol):
    """Computes kernels for one `Spec`."""

    name: str
    spec: Spec
    numerics: int  # version of the bits of the results, raised by hand

    @property
    def source(self) -> str:
        """Digest (SHA-256, hex) of the code, for information."""

    def prepare(self, images: np.ndarray) -> Any:
        """Images (n, C, P, P), float32, finite -> whatever `tile` wants to see of them."""

    def tile(self, x: Any, z: Any, symmetric: bool = False) -> np.ndarray:
        """Kernels of all pairs of two prepared sets: float32 (len(spec.readouts), n, m).

        An entry depends on its two images alone. With `symmetric`, z are the images of x or their mirror
        images, so that the kernel matrix is symmetric: entries [i, j] are computed for i >= j and mirrored.
        """

    def start(self, x: Any, z: Any, symmetric: bool = False) -> Callable[[], np.ndarray]:
        """Start a tile; the function returned waits for it and gives `tile`'s numbers.

        Several tiles may be begun before the first is ended, in the same order.
        """

    def limit(self) -> float | None:
        """Pairs per second that the hardware would allow at most, where that is known."""

    def tile_bytes(self, side: int) -> int:
        """Host memory, in bytes, that a tile of side x side pairs needs at its peak, about."""


def available() -> list[str]:
    """The backends that work on this machine, in order of preference."""
    return [name for name in names() if module(name).available()]


def names() -> tuple[str, ...]:
    """The backends known."""
    return (*NAMES, *plugins.names(GROUP))


def require_known(name: str) -> None:
    """UserError if there is no backend of this name, and it is not "auto"."""
    plugins.require_known("backend", name, ("auto", *names()))


def choose(name: str = "auto") -> str:
    """The backend to use on this machine: `name`, or for "auto" the first one available."""
    if name == "auto":
        return next(name for name in NAMES if module(name).available())
    require_known(name)
    return name


def devices(name: str) -> list[str]:
    """The devices that a backend may have one process on each, as CUDA_VISIBLE_DEVICES names them."""
    return module(name).devices() if hasattr(module(name), "devices") else []


def tile_work(name: str) -> int:
    """Entry-layers that a tile should hold: some seconds of work, so that what surrounds it is little."""
    return module(name).TILE_WORK


def numerics(name: str) -> int:
    """The version of the bits of a backend's results, but for fully connected kernels."""
    return module(name).NUMERICS


def versions(name: str, spec: Spec) -> dict[str, int]:
    """The versions of the bits of a spec's results, by the names that a store keeps them under."""
    found = {"numerics": numerics(name)}
    if spec.part(FULLY_CONNECTED):
        found["fully_connected_numerics"] = fully_connected.NUMERICS
    return found


def create(name: str, spec: Spec) -> Backend:
    """The backend called `name`, such as "cpu", for one spec; UserError where it cannot run."""

    def convolutional(part: Spec) -> Backend:
        scaling.dimmest(part)  # refuses great depths before anything is compiled
        return scaling.Scaled(module(name).Backend(part))

    def dense(part: Spec) -> Backend:
        if not hasattr(module(name), "FullyConnected"):
            raise UserError(f"backend {name!r} has no fully connected kernels: use --backend cpu")
        return module(name).FullyConnected(part)

    return families.create(spec, {CONVOLUTIONAL: convolutional, FULLY_CONNECTED: dense})


def module(name: str) -> Any:
    """The module of a backend."""
    if name == "cpu":
        libraries.numba()  # says so if its settings are broken
    return import_module(f"{__name__}.{name}") if name in NAMES else plugins.load(GROUP, name)
