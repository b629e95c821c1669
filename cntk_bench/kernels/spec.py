"""What is computed: `Readout`, a single kernel, and `Spec`, the readouts of one pass over images."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.kernels.pool import Pool
from cntk_bench.text import short

# Families of kernels: each has a recursion of its own.
CONVOLUTIONAL, FULLY_CONNECTED = "convolutional", "fully connected"
KERNELS = {"ntk": CONVOLUTIONAL, "nngp": CONVOLUTIONAL, "fc-ntk": FULLY_CONNECTED, "fc-nngp": FULLY_CONNECTED}
SMALLEST_BIAS, LARGEST_BIAS = 1e-3, 1e3


@dataclass(frozen=True)
class Readout:
    """One kernel, read from its family's recursion at one depth.

    Parameters
    ----------
    kernel : {"ntk", "nngp", "fc-ntk", "fc-nngp"}
        Neural tangent kernel (every trained layer moves) or NNGP kernel (only the last layer
        is trained), of convolutional networks or, with "fc-", of fully connected ones.
    pool : {"v", "gap", "lap:C", ""}
        How pixels are pooled, as `pool.KINDS` says: "v" vectorises, "gap" averages over all pixels,
        "lap:C" over windows of (2C+1) x (2C+1) pixels; or a pool that another package registered.
        "" for fully connected kernels, which have none.
    depth : int
        Number of layers of weights, of which all but the last are followed by a ReLU. Of convolutional
        kernels that is the number of 3x3 convolutions plus one, as the paper counts: at least 2, and at
        least 3 for the NTK with training "hidden", which is identically zero at depth 2. Of fully connected
        ones at least 1, which is the linear kernel.
    train : {"all", "hidden"}, optional
        Convolutional NTK only: train every layer, or keep the first and the last fixed. By default the
        paper's setting: "hidden" for "gap", "all" otherwise. Any other readout has "all".
    bias : float
        beta of fully connected kernels, which multiplies every layer's biases, N(0, 1) as the weights are:
        0, the default, for none; else from 0.001 to 1000, with at most 6 significant digits.
    fixed : int
        Fully connected NTK only: how many layers of weights and biases, from the first on, are not
        trained; less than the depth, 0 by default. An NNGP readout always has 0.
    flip : bool
        Whether the kernel is averaged over the mirror image, (K(x, z) + K(x, flip z)) / 2, where flip
        reverses the last axis, left and right.

    Raises
    ------
    UserError
        If a value is not one of the above.

    References
    ----------
    Arora et al., "On Exact Computation with an Infinitely Wide Neural Net", NeurIPS 2019. Jacot, Gabriel,
    Hongler, "Neural Tangent Kernel", NeurIPS 2018 (bias). Arora et al., "Harnessing the Power of Infinitely
    Wide Deep Nets on Small-data Tasks", ICLR 2020 (first layers fixed). Li et al., "Enhanced Convolutional
    Neural Tangent Kernels", 2019 (flip).
    """

    kernel: str
    pool: str
    depth: int
    train: str | None = None
    bias: float = 0.0
    fixed: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, str) or self.kernel not in KERNELS:
            raise UserError(f"kernel {short(repr(self.kernel))} is unknown: use {_either(KERNELS)}")
        for name in ("depth", "fixed"):
            if isinstance(getattr(self, name), np.integer):
                object.__setattr__(self, name, int(getattr(self, name)))
        if not isinstance(self.flip, bool):
            raise UserError(f"flip {self.flip!r} is not possible: use True or False")
        if self.family == FULLY_CONNECTED:
            self._check_fully_connected()
        else:
            self._check_convolutional()

    def _check_convolutional(self) -> None:
        object.__setattr__(self, "pool", str(Pool.parse(self.pool)))
        if self.train not in (None, "all", "hidden"):
            raise UserError(f"train {self.train!r} is unknown: use 'all' or 'hidden'")
        if self.bias or self.fixed:
            raise UserError(
                f"kernel {self.kernel!r} has no bias and no fixed: they are of 'fc-{self.kernel}'"
            )
        if self.kernel == "nngp":
            object.__setattr__(self, "train", "all")
        elif self.train is None:
            object.__setattr__(self, "train", "hidden" if self.pool == "gap" else "all")
        least = 3 if self.train == "hidden" else 2
        if not is_integer(self.depth, least):
            raise UserError(
                f"depth {self.depth!r} is not possible for {self.kernel}/{self.pool}/{self.train}: "
                f"use an integer of at least {least} (depth = 3x3 convolutions + 1)"
            )

    def _check_fully_connected(self) -> None:
        if self.pool not in ("", None) or self.train not in ("all", None):
            raise UserError(
                f"kernel {self.kernel!r} has no pool and no train: use pool '' and leave train out"
            )
        if not is_integer(self.depth, 1):
            raise UserError(
                f"depth {self.depth!r} is not possible for {self.kernel}: use an integer of at least 1 "
                "(depth = layers of weights)"
            )
        if not _is_bias(self.bias):
            raise UserError(
                f"bias {short(repr(self.bias), 40)} is not possible: use 0, or a number from {SMALLEST_BIAS} "
                f"to {LARGEST_BIAS:.0f} with at most 6 significant digits"
            )
        if not is_integer(self.fixed, 0) or self.fixed >= self.depth:
            raise UserError(
                f"fixed {self.fixed!r} is not possible at depth {self.depth}: use an integer from 0 to "
                f"{self.depth - 1} (layers that are not trained)"
            )
        kept = {"pool": "", "train": "all", "bias": float(self.bias) + 0.0}  # no -0.0
        kept |= {"fixed": 0} if self.kernel == "fc-nngp" else {}
        for name, value in kept.items():
            object.__setattr__(self, name, value)

    @property
    def family(self) -> str:
        """CONVOLUTIONAL or FULLY_CONNECTED."""
        return KERNELS[self.kernel]

    @property
    def pooling(self) -> Pool:
        """The pool as a `Pool`; for convolutional readouts only."""
        return Pool.parse(self.pool)

    @property
    def plain(self) -> "Readout":
        """The same readout without the flip."""
        return replace(self, flip=False)

    @property
    def nngp(self) -> "Readout":
        """The NNGP kernel of the same networks."""
        return replace(self, kernel=self.kernel.replace("ntk", "nngp"))

    @classmethod
    def parse(cls, name: str) -> "Readout":
        """The readout of a name as `str` gives it, such as "ntk-gap-21-hidden"; UserError for any other."""
        found = re.fullmatch(r"(ntk|nngp)-([a-z]{1,20})(\d*)-(\d{1,9})(?:-(all|hidden))?(-flip)?", name)
        dense = re.fullmatch(r"(fc-ntk|fc-nngp)-(\d{1,9})(?:-b([\d.]{1,9}))?(?:-f(\d{1,9}))?(-flip)?", name)
        readout = None
        if found:
            kernel, kind, number, depth, train, flip = found.groups()
            pool = f"{kind}:{number}" if number else kind
            readout = cls(kernel, pool, int(depth), train, flip=bool(flip))
        elif dense and (dense[3] or "0").count(".") < 2 and dense[3] != ".":
            kernel, depth, bias, fixed, flip = dense.groups()
            readout = cls(kernel, "", int(depth), None, float(bias or 0), int(fixed or 0), bool(flip))
        if readout is None or str(readout) != name:
            raise UserError(
                f"readout {short(name)} is unknown: a name is such as ntk-gap-21-hidden, nngp-lap4-6-flip "
                "or fc-ntk-3-b0.1"
            )
        return readout

    def __str__(self) -> str:
        if self.family == FULLY_CONNECTED:
            name = f"{self.kernel}-{self.depth}"
            name += f"-b{self.bias:g}" * (self.bias > 0) + f"-f{self.fixed}" * (self.fixed > 0)
        else:
            name = f"{self.kernel}-{self.pool.replace(':', '')}-{self.depth}"
            name += f"-{self.train}" * (self.kernel == "ntk")
        return name + "-flip" * self.flip


def is_integer(value: object, least: int) -> bool:
    """Whether a value is a Python or NumPy integer, not a bool, of at least `least`."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def _is_bias(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    possible = value == 0 or SMALLEST_BIAS <= value <= LARGEST_BIAS
    return bool(possible) and float(f"{value:g}") == value  # its name must be the number itself


def _either(names: Iterable[str]) -> str:
    *most, last = map(repr, names)
    return f"{', '.join(most)} or {last}"


@dataclass(frozen=True)
class Spec:
    """The readouts of one pass over images of one shape.

    Parameters
    ----------
    readouts : tuple of Readout
        In the order in which results are returned; no duplicates.
    channels : int
        Channels C of an image.
    size : int
        Height and width P of an image, in pixels.
    """

    readouts: tuple[Readout, ...]
    channels: int
    size: int

    def __post_init__(self) -> None:
        if not self.readouts:
            raise UserError("no readouts: name at least one kernel and one depth")
        for readout in self.readouts:
            if self.readouts.count(readout) > 1:
                raise UserError(f"readout {readout} is listed twice: list it once")
        if self.channels < 1 or self.size < 1:
            raise UserError(f"images of shape ({self.channels}, {self.size}, {self.size}) are empty")

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """Distinct depths read, ascending; the last is the depth of the recursion."""
        return tuple(sorted({r.depth for r in self.readouts}))

    @cached_property
    def layers(self) -> int:
        """ReLU layers the recursion runs through: the largest depth minus one."""
        return self.depths[-1] - 1

    @cached_property
    def pools(self) -> tuple[Pool, ...]:
        """Distinct pools, in order of first use."""
        return tuple(dict.fromkeys(r.pooling for r in self.readouts if r.family == CONVOLUTIONAL))

    @property
    def features(self) -> int:
        """Number of values in an image: C P^2."""
        return self.channels * self.size**2

    def part(self, family: str, flip: bool = False) -> "Spec | None":
        """The spec of the plain readouts of one family needed for K(x, z), or with `flip` for K(x, flip z).

        None if no such readout is needed.
        """
        needed = (r.plain for r in self.readouts if r.family == family and (r.flip or not flip))
        readouts = tuple(dict.fromkeys(needed))
        return Spec(readouts, self.channels, self.size) if readouts else None

    @property
    def work(self) -> int:
        """Entry-layers of one pair of images: layers x displacements x size^2, twice if images are mirrored.

        The work of fully connected kernels is converted to the same unit, approximately.
        """
        parts = {family: [self.part(family, flip) for flip in (False, True)] for family in KERNELS.values()}
        return sum(_entry_layers(part) for part in parts[CONVOLUTIONAL] if part) + sum(
            _features_and_layers(part) for part in parts[FULLY_CONNECTED] if part
        )


def _entry_layers(spec: Spec) -> int:
    displacements = max(len(pool.reach(spec.size)) for pool in spec.pools) ** 2
    return spec.layers * displacements * spec.size**2


# Approximate cost of a feature and of a layer of a fully connected pair on a CPU, in entry-layers (measured).
FEATURE, LAYER = 0.5, 40


def _features_and_layers(spec: Spec) -> int:
    deepest = {r.bias: 0 for r in spec.readouts}
    for r in spec.readouts:
        deepest[r.bias] = max(deepest[r.bias], r.depth)
    return round(FEATURE * spec.features + LAYER * sum(deepest.values()))
