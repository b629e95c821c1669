"""Backends, which compute the kernels: each prepares images once, then computes tiles of kernel matrices.

To add a backend, write a module that follows the protocol `Module`, whose class `Backend` follows the
protocol of that name. Add its name to `NAMES`, or register the module from another package under the entry
point group `cntk_bench.backends`. `families` combines its classes for flips and for specs of several
families. "auto" chooses only among the backends of this package.
"""

import hashlib
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from cntk_bench.backends import families, fully_connected, scaling
from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import CONVOLUTIONAL, FULLY_CONNECTED, Spec
from cntk_bench.system import libraries, plugins

log = logging.getLogger(__name__)

NAMES = ("cuda", "cpu")  # in order of preference
GROUP = "cntk_bench.backends"


class Backend(Protocol):
    """Computes kernels for one `Spec`, which its constructor is given.

    The spec's readouts are of one family and have no flip; `cntk_bench.reference.gram` defines them. For
    images of independent pixels every entry has to be within 1e-6 of the definition, relative to the entry.
    `tests/backend_suite.py` has all requirements as tests. The same images and spec have to give the same
    bits on the same kind of machine.

    Attributes
    ----------
    name : str
        The backend's, such as "cpu".
    spec : Spec
        As given to the constructor.
    """

    name: str
    spec: Spec

    @property
    def source(self) -> str:
        """Digest (SHA-256, hex) of the code, for information."""

    def prepare(self, images: np.ndarray) -> Any:
        """Prepare images (n, C, P, P), float32 and finite, in whatever form `tile` needs.

        They are already scaled by powers of two where their kernels would leave float32's range.
        """

    def tile(self, x: Any, z: Any, symmetric: bool = False) -> np.ndarray:
        """Kernels of all pairs of two prepared sets: float32 (len(spec.readouts), n, m).

        An entry depends only on its two images. With `symmetric`, z holds the images of x or their mirror
        images, so that the kernel matrix is symmetric: entries [i, j] are computed for i >= j and mirrored.
        """

    def start(self, x: Any, z: Any, symmetric: bool = False) -> Callable[[], np.ndarray]:
        """Start a tile; the returned function waits for it and returns what `tile` would.

        Several tiles may be started before the first is finished; they are finished in the same order.
        """

    def limit(self) -> float | None:
        """Upper bound on pairs of images per second set by the hardware; None if it is unknown."""

    def tile_bytes(self, side: int) -> int:
        """Approximate peak host memory, in bytes, that a tile of side x side pairs needs."""


class Module(Protocol):
    """What a backend's module has; other packages register theirs under `cntk_bench.backends`.

    The entry point's name is the value of `compute.backend`. It may be any object with these attributes, of
    which those called optional may be missing.

    Attributes
    ----------
    NUMERICS : int
        The version of the bits of its results. Raise it when they change: a store is continued only by the
        version that it was begun with.
    TILE_WORK : int
        The entry-layers that a tile should hold, for some seconds of work (`Spec.work` is that of a pair).
    Backend : callable (spec) -> Backend
        The class; it raises a UserError if it cannot compute the spec here.
    FullyConnected : callable (spec) -> Backend, optional
        A second class, for the readouts of fully connected networks. Without it, columns that need them are
        refused.
    TOGETHER : int, optional
        The number of images z whose kernels with x take no longer than those of one; 1 by default.
    machine : callable () -> object, optional
        Returns all that the last bits depend on besides NUMERICS, such as the kind of CPU; its `repr` is
        digested. By default the bits are taken to be the same on all machines.
    refusal : callable (spec) -> str or None, optional
        Returns why it cannot compute a spec, in words that follow its name; "auto" then takes another. By
        default it takes every spec.
    devices : callable () -> list of str, optional
        Returns the devices for one process each, as in CUDA_VISIBLE_DEVICES. By default processes share the
        cores.
    """

    NUMERICS: int
    TILE_WORK: int
    Backend: Callable[[Spec], Backend]

    def available(self) -> bool:
        """Return whether it works on this machine; quickly, and without raising an error."""


def available() -> list[str]:
    """The backends that work on this machine, in order of preference."""
    return [name for name in names() if module(name).available()]


def names() -> tuple[str, ...]:
    """Names of all known backends, those of other packages last."""
    return (*NAMES, *plugins.names(GROUP))


def require_known(name: str) -> None:
    """Raise UserError unless `name` is "auto" or the name of a known backend."""
    plugins.require_known("backend", name, ("auto", *names()))


def choose(name: str = "auto", spec: Spec | None = None) -> str:
    """The backend to use on this machine: `name`, or for "auto" the first one available that takes the spec.

    If a preferred one does not take it, a warning says why.
    """
    if name != "auto":
        require_known(name)
        return name
    refused: list[str] = []
    for one in NAMES:
        if not module(one).available():
            continue
        if spec is None or (reason := refusal(one, spec)) is None:
            if refused:
                log.warning("computing on the backend %s: %s", one, "; ".join(refused))
            return one
        refused.append(f"{one} {reason}")
    raise UserError(f"no backend works here ({'; '.join(refused) or 'see `cntk-bench info`'})")


def refusal(name: str, spec: Spec) -> str | None:
    """Why a backend cannot compute a spec, in words that follow its name; None if it can.

    A backend that has no function `refusal` takes every spec.
    """
    found = getattr(module(name), "refusal", None)
    return found(spec) if found else None


def devices(name: str) -> list[str]:
    """Devices that can each run one process of a backend, named as in CUDA_VISIBLE_DEVICES."""
    return module(name).devices() if hasattr(module(name), "devices") else []


def tile_work(name: str) -> int:
    """Entry-layers that a tile should hold: a second of work or more, so that its overhead is small."""
    return module(name).TILE_WORK


def together(name: str) -> int:
    """Number of images z whose kernels with x are computed at once, in the time of one: `TOGETHER`, or 1."""
    return getattr(module(name), "TOGETHER", 1)


def machine(name: str) -> str:
    """Digest of the kind of machine here: of what the last bits depend on besides the program's version.

    These are the kind of CPU or GPU, and the compilers. "" for a backend that has no function `machine`.
    """
    found = getattr(module(name), "machine", None) if name in names() else None
    return hashlib.sha256(repr(found()).encode()).hexdigest()[:8] if found else ""


def numerics(name: str) -> int:
    """The version of the bits of a backend's results, except for fully connected kernels.

    It is raised by hand when they change.
    """
    return module(name).NUMERICS


def versions(name: str, spec: Spec) -> dict[str, int]:
    """The versions of the bits of a spec's results, keyed by the names under which a store keeps them."""
    found = {"numerics": numerics(name)}
    if spec.part(FULLY_CONNECTED):
        found["fully_connected_numerics"] = fully_connected.NUMERICS
    return found


def create(name: str, spec: Spec) -> Backend:
    """Create the backend called `name`, such as "cpu", for one spec; UserError if it cannot run here."""

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
        libraries.numba()  # raises UserError if its settings are broken
    return import_module(f"{__name__}.{name}") if name in NAMES else plugins.load(GROUP, name)
