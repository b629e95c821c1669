"""What is computed: readouts, and the one recursion that serves them all."""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.kernels.pool import Pool
from cntk_bench.text import short


@dataclass(frozen=True)
class Readout:
    """One kernel, read from the recursion at one depth.

    Parameters
    ----------
    kernel : {"ntk", "nngp"}
        Neural tangent kernel (every trained layer moves) or NNGP kernel (only the last layer
        is trained).
    pool : {"v", "gap", "lap:C"}
        How pixels are pooled, as `pool.KINDS` says: "v" vectorises, "gap" averages over all pixels,
        "lap:C" over windows of (2C+1) x (2C+1) pixels; or a pool that another package registered.
    depth : int
        Number of 3x3 convolutions plus one, as the paper counts; at least 2, and at least 3
        for the NTK with training "hidden", which is identically zero at depth 2.
    train : {"all", "hidden"}, optional
        NTK only: train every layer, or keep the first and the last fixed. By default the
        paper's setting: "hidden" for "gap", "all" otherwise. An NNGP readout always has "all".

    Raises
    ------
    UserError
        If a value is not one of the above.

    References
    ----------
    Arora et al., "On Exact Computation with an Infinitely Wide Neural Net", NeurIPS 2019.
    """

    kernel: str
    pool: str
    depth: int
    train: str | None = None

    def __post_init__(self):
        if self.kernel not in ("ntk", "nngp"):
            raise UserError(f"kernel {self.kernel!r} is unknown: use 'ntk' or 'nngp'")
        object.__setattr__(self, "pool", str(Pool.parse(self.pool)))
        if self.train not in (None, "all", "hidden"):
            raise UserError(f"train {self.train!r} is unknown: use 'all' or 'hidden'")
        if isinstance(self.depth, np.integer):
            object.__setattr__(self, "depth", int(self.depth))
        if self.kernel == "nngp":
            object.__setattr__(self, "train", "all")
        elif self.train is None:
            object.__setattr__(self, "train", "hidden" if self.pool == "gap" else "all")
        least = 3 if self.train == "hidden" else 2
        if not isinstance(self.depth, int) or self.depth < least:
            raise UserError(
                f"depth {self.depth!r} is not possible for {self.kernel}/{self.pool}/{self.train}: "
                f"use an integer of at least {least} (depth = 3x3 convolutions + 1)"
            )

    @property
    def pooling(self) -> Pool:
        """Its pool, as a value."""
        return Pool.parse(self.pool)

    @classmethod
    def parse(cls, name: str) -> "Readout":
        """The readout of a name that `str` gives, such as "ntk-gap-21-hidden"; UserError for any other."""
        found = re.fullmatch(r"(ntk|nngp)-([a-z]{1,20})(\d*)-(\d{1,9})(?:-(all|hidden))?", name)
        if found:
            kernel, kind, number, depth, train = found.groups()
            readout = cls(kernel, f"{kind}:{number}" if number else kind, int(depth), train)
            if str(readout) == name:
                return readout
        raise UserError(
            f"readout {short(name)} is unknown: a name is such as ntk-gap-21-hidden or nngp-lap4-6"
        )

    def __str__(self):
        name = f"{self.kernel}-{self.pool.replace(':', '')}-{self.depth}"
        return name if self.kernel == "nngp" else f"{name}-{self.train}"


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

    def __post_init__(self):
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
        return tuple(dict.fromkeys(r.pooling for r in self.readouts))

    @property
    def work(self) -> int:
        """Entry-layers of one pair of images: layers x displacements x size^2."""
        displacements = max(len(pool.reach(self.size)) for pool in self.pools) ** 2
        return self.layers * displacements * self.size**2
