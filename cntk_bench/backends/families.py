"""A spec taken apart into what single recursions compute, and their results put together again.

Its parts: the convolutional readouts and the fully connected ones, of K(x, z), and for those that are
averaged over mirror images of K(x, flip z). K(x, z) is computed once for a readout with and without the flip.

Every part's bits are those of a backend of its own, whatever is computed beside it.
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
    """The backend of a spec of any readouts.

    Parameters
    ----------
    spec : Spec
    backends : dict
        For CONVOLUTIONAL and FULLY_CONNECTED: plain readouts of that family alone -> their backend.

    Raises
    ------
    UserError
        If a readout with a flip has a pool, of another package, that tells left from right.
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
    """A backend, and whether it is given K(x, flip z) to compute."""

    backend: "Backend"
    flip: bool


class Images:
    """Images (n, C, P, P), prepared for a backend, mirrored or not, when that is first asked for."""

    def __init__(self, images: np.ndarray):
        self.images = images
        self._prepared: dict[tuple[int, bool], Any] = {}

    def prepared(self, backend: "Backend", flip: bool) -> Any:
        """What the backend wants to see of the images, or of their mirror images."""
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
        Whose readouts are all that the spec's need.
    """

    def __init__(self, spec: Spec, parts: list[Part]):
        self.spec, self.parts = spec, parts
        self.name, self.numerics = parts[0].backend.name, parts[0].backend.numerics
        place = {
            (part.flip, readout): (number, index)
            for number, part in enumerate(parts)
            for index, readout in enumerate(part.backend.spec.readouts)
        }
        # For each readout: the part and place of K(x, z), and of K(x, flip z) where that is averaged with it.
        self._terms = [
            [place[flip, r.plain] for flip in ((False, True) if r.flip else (False,))] for r in spec.readouts
        ]

    @property
    def source(self) -> str:
        """Digest (SHA-256, hex) of the parts' own."""
        return hashlib.sha256("".join(part.backend.source for part in self.parts).encode()).hexdigest()

    def prepare(self, images: np.ndarray) -> Images:
        """Images (n, C, P, P); prepared for a part when it needs them."""
        return Images(images)

    def tile(self, x: Images, z: Images, symmetric: bool = False) -> np.ndarray:
        """Prepared x (n images) and z (m images) -> float32 (readouts, n, m)."""
        return self.start(x, z, symmetric)()

    def start(self, x: Images, z: Images, symmetric: bool = False) -> Callable[[], np.ndarray]:
        """Start a tile of every part; the function returned gives the numbers."""
        ends = [
            part.backend.start(
                x.prepared(part.backend, False), z.prepared(part.backend, part.flip), symmetric
            )
            for part in self.parts
        ]

        def finish():
            numbers = [end() for end in ends]
            out = np.empty((len(self.spec.readouts), *numbers[0].shape[1:]), np.float32)
            for kept, readout, terms in zip(out, self.spec.readouts, self._terms, strict=True):
                first, *mirrored = (numbers[part][index] for part, index in terms)
                if mirrored:  # the sum of two floats, and half of it, are exact in float64, nearly always
                    mean = (first.astype(np.float64) + mirrored[0]) / 2
                    require_normal(mean, readout)
                    first = mean
                kept[:] = first
            return out

        return finish

    def limit(self) -> float | None:
        """Pairs per second that the hardware would allow for all parts, where that is known of each."""
        limits = [part.backend.limit() for part in self.parts]
        known = [limit for limit in limits if limit]
        return 1 / sum(1 / limit for limit in known) if len(known) == len(limits) else None

    def tile_bytes(self, side: int) -> int:
        """What the parts need, and the tile that they become."""
        own = 4 * len(self.spec.readouts) * side**2 + 16 * side**2 + 4 * side * self.spec.features
        return own + sum(part.backend.tile_bytes(side) for part in self.parts)
