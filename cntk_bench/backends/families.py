"""Backends for specs with flips or several families: split into single recursions, then combined.

There are up to four parts: the convolutional and the fully connected readouts of K(x, z), and those of
K(x, flip z) for readouts averaged over mirror images. A readout asked for with and without the flip shares
one K(x, z).

Each part has the same bits as if its backend ran alone, whatever is computed beside it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cntk_bench.backends.scaling import require_normal
from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import CONVOLUTIONAL, FULLY_CONNECTED, Spec

if TYPE_CHECKING:
    from cntk_bench.backends import Backend


def create(spec: Spec, backends: dict[str, Callable[[Spec], "Backend"]]) -> "Backend":
    """Create a backend for a spec with any readouts.

    Parameters
    ----------
    spec : Spec
    backends : dict
        For CONVOLUTIONAL and FULLY_CONNECTED, a function that makes a backend for a spec of plain readouts
        of that family.

    Raises
    ------
    UserError
        If a readout with a flip has a pool, of another package, that is not symmetric under mirroring.
    """
    parts = []
    for readout in spec.readouts:
        one_sided = readout.family == CONVOLUTIONAL and not readout.pooling.is_mirrored(spec.size)
        if readout.flip and one_sided:
            raise UserError(f"pool {readout.pool!r} tells left from right: its kernels have no flip")
    for family in (CONVOLUTIONAL, FULLY_CONNECTED):
        plain, flipped = spec.part(family), spec.part(family, flip=True)
        if plain is not None:
            backend = backends[family](plain)
            if plain == spec:
                return backend
            parts.append(Part(backend, False))
            if flipped is not None:
                parts.append(Part(backend if flipped == plain else backends[family](flipped), True))
    return Composed(spec, parts)


@dataclass(frozen=True)
class Part:
    """A backend, and whether it computes K(x, flip z) instead of K(x, z)."""

    backend: "Backend"
    flip: bool


class Images:
    """Images (n, C, P, P) that are prepared, mirrored or not, when a backend first needs them."""

    def __init__(self, images: np.ndarray):
        self.images = images
        self._prepared: dict[tuple[int, bool], Any] = {}

    def prepared(self, backend: "Backend", flip: bool) -> Any:
        """The images, or with `flip` their mirror images, as the backend prepares them."""
        key = id(backend), flip
        if key not in self._prepared:
            images = np.ascontiguousarray(self.images[..., ::-1]) if flip else self.images
            self._prepared[key] = backend.prepare(images)
        return self._prepared[key]


class Composed:
    """A backend for readouts of several families, flips among them; see `cntk_bench.backends.Backend`.

    Parameters
    ----------
    spec : Spec
    parts : list of Part
        Together they hold every plain readout that the spec needs.
    """

    def __init__(self, spec: Spec, parts: list[Part]):
        self.spec, self.parts = spec, parts
        self.name = parts[0].backend.name
        place = {
            (part.flip, readout): (number, index)
            for number, part in enumerate(parts)
            for index, readout in enumerate(part.backend.spec.readouts)
        }
        # For each readout: the part and index of K(x, z), and of K(x, flip z) if the two are averaged.
        self._terms = [
            [place[flip, r.plain] for flip in ((False, True) if r.flip else (False,))] for r in spec.readouts
        ]

    @property
    def source(self) -> str:
        """SHA-256 (hex) of the concatenated digests of the parts."""
        return hashlib.sha256("".join(part.backend.source for part in self.parts).encode()).hexdigest()

    def prepare(self, images: np.ndarray) -> Images:
        """Wrap images (n, C, P, P), which are prepared for each part when it first needs them."""
        return Images(images)

    def tile(self, x: Images, z: Images, symmetric: bool = False) -> np.ndarray:
        """Prepared x (n images) and z (m images) -> float32 (readouts, n, m)."""
        return self.start(x, z, symmetric)()

    def start(self, x: Images, z: Images, symmetric: bool = False) -> Callable[[], np.ndarray]:
        """Start a tile of every part; the returned function waits for them and returns the whole tile."""
        ends = [
            part.backend.start(
                x.prepared(part.backend, False), z.prepared(part.backend, part.flip), symmetric
            )
            for part in self.parts
        ]

        def finish() -> np.ndarray:
            numbers = [end() for end in ends]
            out = np.empty((len(self.spec.readouts), *numbers[0].shape[1:]), np.float32)
            for kept, readout, terms in zip(out, self.spec.readouts, self._terms, strict=True):
                first, *mirrored = (numbers[part][index] for part, index in terms)
                if mirrored:  # the mean of two float32 numbers is nearly always exact in float64
                    mean = (first.astype(np.float64) + mirrored[0]) / 2
                    require_normal(mean, readout)
                    first = mean
                kept[:] = first
            return out

        return finish

    def limit(self) -> float | None:
        """Upper bound on pairs per second for all parts together; None unless each part's is known."""
        limits = [part.backend.limit() for part in self.parts]
        known = [limit for limit in limits if limit]
        return 1 / sum(1 / limit for limit in known) if len(known) == len(limits) else None

    def tile_bytes(self, side: int) -> int:
        """Approximate peak host memory, in bytes: that of the parts and of the combined tile."""
        own = 4 * len(self.spec.readouts) * side**2 + 16 * side**2 + 4 * side * self.spec.features
        return own + sum(part.backend.tile_bytes(side) for part in self.parts)
