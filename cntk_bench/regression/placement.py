"""Where and how a solve runs, decided before anything is loaded: method, device, precision and memory."""

import logging
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import AUTO, cholesky, conjugate, partial
from cntk_bench.system import memory
from cntk_bench.system.memory import GIB

log = logging.getLogger(__name__)

BLAS_BUFFERS = 2**26  # bytes
METHODS = {  # in words
    "cholesky": "a Cholesky factor in {0.dtype}",
    "refined": "a Cholesky factor in float32, refined to float64 by conjugate gradients",
    "cg": "conjugate gradients on stored tiles, with a preconditioner of rank {0.rank:,}",
}


@dataclass(frozen=True)
class Place:
    """Where, how and in which precision a solve of one size runs, and the memory it needs at its peak.

    device : "cpu" or "cuda".  dtype : "float64" or "float32", of the matrix that is factored.
    host : bytes of main memory, the Gram matrix included (float32 where device is "cuda").
    gpu : bytes on the GPU; 0 where device is "cpu".
    method : a solver of `SOLVERS`, or of another package.
    rank : of the preconditioner, where the method is "cg"; else 0.
    """

    device: str
    dtype: str
    host: int
    gpu: int
    method: str = "cholesky"
    rank: int = 0

    @property
    def words(self) -> str:
        """Method, precision and device."""
        where = {"cpu": "the CPU", "cuda": "a GPU"}[self.device]
        return f"{METHODS.get(self.method, 'the solver {0.method}').format(self)} on {where}"

    def __str__(self) -> str:
        most = f"{self.host / GIB:.1f} GiB" + (f", {self.gpu / GIB:.1f} GiB on the GPU" if self.gpu else "")
        return f"{self.words}, in {most} of memory at most"


def choose(
    n: int,
    *,
    classes: int,
    device: str = "auto",
    dtype: str = "auto",
    limit: float | None = None,
    solver: str = "cholesky",
    several: bool = False,
    streaming: int = 0,
) -> Place:
    """Decide where and how n training images are solved, before anything is loaded.

    Parameters
    ----------
    n, classes : int
        Training images and classes. Test images are streamed and ridges solved one after another:
        neither adds to the peak.
    device : {"auto", "cpu", "cuda"}
        "auto": a GPU where there is one and the solve fits, else the CPU.
    dtype : {"auto", "float64", "float32"}
        "auto": float64 where memory allows, else float32.
    limit : float, optional
        GiB of main memory that may be used, instead of what the system says is free: the memory of
        a virtual machine may start small and grow when it is asked for.
    solver : str
        "auto": of one ridge the first that fits of "cholesky" in float64, "refined" and "cg"; of several
        "cholesky".
    several : bool
        Whether one of several ridges is to be chosen, which needs the whole factor.
    streaming : int
        Bytes needed for streaming the matrices, if "cg" is tried.

    Raises
    ------
    UserError
        If the solve fits nowhere that was allowed, or a value is not one of the above.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {device!r} is unknown: use 'auto', 'cpu' or 'cuda'")
    if dtype not in ("auto", "float64", "float32"):
        raise UserError(f"dtype {dtype!r} is unknown: use 'auto', 'float64' or 'float32'")
    devices, gpu_free = [device], 0
    if device != "cpu" and solver != "cg":
        try:
            gpu_free = memory.available("cuda")
            devices = ["cuda", "cpu"] if device == "auto" else ["cuda"]
        except UserError:
            if device == "cuda":
                raise
            devices = ["cpu"]
    host_free = _free(limit)
    log.info(
        "free for the solve: %.1f GiB of main memory, %.1f GiB on a GPU", host_free / GIB, gpu_free / GIB
    )
    places = [
        streamed(n, classes=classes, free=host_free, streaming=streaming)
        if method == "cg"
        else predict(n, classes=classes, device=d, dtype=t, method=method)
        for method, t in _methods(solver, dtype, several)
        for d in devices
        if (method, d) != ("cg", "cuda")
    ]
    for p in places:
        if p.gpu <= gpu_free and p.host <= host_free:
            if p.device == "cpu":
                _tell_missed(places, gpu_free, host_free)
            return p
    p = places[-1]
    where = "this machine" if p.gpu <= gpu_free else "the GPU"
    how = "from stored tiles" if p.method == "cg" else f"in {p.dtype}"
    needed, free = (p.host, host_free) if p.gpu <= gpu_free else (p.gpu, gpu_free)
    raise UserError(
        f"solving {n} training images {how} needs {needed / GIB:.1f} GiB and {where} has "
        f"{free / GIB:.1f} GiB free: use fewer training images"
        + (", float32" if p.dtype == "float64" and p.method != "cg" else "")
        + " or more memory, or say with solve.memory how many GiB there are"
        + (", or give one ridge, which takes less than leave-one-out" if solver == AUTO and several else "")
    )


def _tell_missed(places: list[Place], gpu_free: int, host_free: int) -> None:
    """Warn where a GPU, which is much faster, has room, and only main memory seems to have none."""
    missed = [p for p in places if p.device == "cuda" and p.gpu <= gpu_free]
    if missed:
        log.warning(
            "solving on the CPU: the GPU has room, but %.1f GiB of main memory are needed beside it, and "
            "%.1f are free; if there are more, say with solve.memory how many GiB",
            min(p.host for p in missed) / GIB, host_free / GIB,
        )  # fmt: skip


def _methods(solver: str, dtype: str, several: bool) -> list[tuple[str, str]]:
    """(method, dtype) in the order in which they are tried."""
    automatic = {"cholesky": "float64", "refined": "float32", "cg": "float64"}
    if solver == AUTO and not several:
        return [(m, t) for m, t in automatic.items() if m == "cg" or dtype in ("auto", t)]
    if solver in ("refined", "cg"):
        return [(solver, automatic[solver])]
    types = ("float64", "float32") if dtype == "auto" else (dtype,)
    return [("cholesky" if solver == AUTO else solver, t) for t in types]


def predict(n: int, *, classes: int, device: str, dtype: str, method: str = "cholesky") -> Place:
    """Peak memory of `ridge.solve(..., overwrite=True)`, the Gram matrix included, as a `Place`.

    For the method "refined", that of `iterative.refined`.
    """
    itemsize = np.dtype(dtype).itemsize
    panel = n * min(n, cholesky.BLOCK)
    columns = 8 * n * classes
    vectors = columns * conjugate.VECTORS if method == "refined" else 0
    wide = 0 if dtype == "float64" else 4  # panels more, for residuals in float64
    if device == "cpu":
        arrays = itemsize * (n * n + (4 + wide) * panel + columns) + vectors
        return Place(device, dtype, arrays + BLAS_BUFFERS, 0, method)
    # The Gram matrix waits on the host as float32, as it is stored. On the GPU CuPy copies the
    # operands of products, and the CUDA libraries take about 1 GiB for themselves.
    host = 4 * (n * n + 2 * panel) + itemsize * columns + vectors + BLAS_BUFFERS
    return Place(device, dtype, host, itemsize * (n * n + (6 + wide) * panel + columns) + GIB, method)


def streamed(n: int, *, classes: int, free: int, streaming: int) -> Place:
    """Peak memory of `iterative.cg` with the largest rank that fits into `free` bytes, and is worth it.

    `streaming` is what reading takes, in bytes, with `stream.PIECES` copies of a piece in float64.
    """
    fixed = 8 * n * classes * conjugate.VECTORS + streaming + BLAS_BUFFERS
    ranks = range(1, n // partial.SHARE_OF_N + 1)
    largest = bisect_right(ranks, free - fixed, key=lambda rank: partial.memory(n, rank))  # that fits, or 0
    return Place("cpu", "float64", fixed + partial.memory(n, largest), 0, "cg", largest)


def require(needed: int, n: int, what: str, limit: float | None = None) -> None:
    """Raise UserError if more bytes are needed for n training images than are free, or than `limit` GiB.

    `what` says what for, such as "an eigendecomposition".
    """
    free = _free(limit)
    if needed > free:
        sizes = f"needs {needed / GIB:.1f} GiB and {free / GIB:.1f} GiB are free"
        raise UserError(
            f"{what} of {n:,} training images {sizes}: "
            "use fewer (--train) or more memory, or say with solve.memory how many GiB there are"
        )


def _free(limit: float | None) -> int:
    """Bytes of main memory that are free, or as many as `limit` GiB says."""
    return memory.available() if limit is None else int(limit * GIB)


def room_ahead(place: Place, n: int, limit: float | None = None) -> bool:
    """Whether the next Gram matrix (n, n), float32, may be read from the disk while one is on the GPU;
    `limit` as for `choose`."""
    free = _free(limit)
    return place.device == "cuda" and free >= place.host + 4 * n * n
