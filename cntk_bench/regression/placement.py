"""Where a solve runs, decided before anything is loaded: the device, the precision, and the memory."""

import logging
from dataclasses import dataclass

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.regression import cholesky
from cntk_bench.system import memory
from cntk_bench.system.memory import GIB

log = logging.getLogger(__name__)

BLAS_BUFFERS = 2**26  # bytes


@dataclass(frozen=True)
class Place:
    """Where and in which precision a solve of one size runs, and the memory it needs at its peak.

    device : "cpu" or "cuda".  dtype : "float64" or "float32".
    host : bytes of main memory, the Gram matrix included (float32 where device is "cuda").
    gpu : bytes on the GPU; 0 where device is "cpu".
    """

    device: str
    dtype: str
    host: int
    gpu: int


def choose(
    n: int, *, classes: int, device: str = "auto", dtype: str = "auto", limit: float | None = None
) -> Place:
    """Decide where n training images are solved, before anything is loaded.

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
    if device != "cpu":
        try:
            gpu_free = memory.available("cuda")
            devices = ["cuda", "cpu"] if device == "auto" else ["cuda"]
        except UserError:
            if device == "cuda":
                raise
            devices = ["cpu"]
    host_free = memory.available() if limit is None else int(limit * GIB)
    log.info(
        "free for the solve: %.1f GiB of main memory, %.1f GiB on a GPU", host_free / GIB, gpu_free / GIB
    )
    places = [
        predict(n, classes=classes, device=d, dtype=t)
        for t in (("float64", "float32") if dtype == "auto" else (dtype,))
        for d in devices
    ]
    for p in places:
        if p.gpu <= gpu_free and p.host <= host_free:
            return p
    p = places[-1]
    where = "this machine" if p.gpu <= gpu_free else "the GPU"
    needed, free = (p.host, host_free) if p.gpu <= gpu_free else (p.gpu, gpu_free)
    raise UserError(
        f"solving {n} training images in {p.dtype} needs {needed / GIB:.1f} GiB and {where} has "
        f"{free / GIB:.1f} GiB free: use fewer training images"
        + (", float32" if p.dtype == "float64" else "")
        + " or more memory, or say with solve.memory how many GiB there are"
    )


def predict(n: int, *, classes: int, device: str, dtype: str) -> Place:
    """Peak memory of `ridge.solve(..., overwrite=True)`, the Gram matrix included, as a `Place`."""
    itemsize = np.dtype(dtype).itemsize
    panel = n * min(n, cholesky.BLOCK)
    columns = 8 * n * classes
    wide = 0 if dtype == "float64" else 4  # panels more, for residuals in float64
    if device == "cpu":
        return Place(device, dtype, itemsize * (n * n + (4 + wide) * panel + columns) + BLAS_BUFFERS, 0)
    # The Gram matrix waits on the host as float32, as it is stored. On the GPU CuPy copies the
    # operands of products, and the CUDA libraries take about 1 GiB for themselves.
    host = 4 * (n * n + 2 * panel) + itemsize * columns + BLAS_BUFFERS
    return Place(device, dtype, host, itemsize * (n * n + (6 + wide) * panel + columns) + GIB)


def require(needed: int, n: int, what: str, limit: float | None = None) -> None:
    """UserError if `needed` bytes for n training images are not free, or are more than `limit` GiB.

    `what` says what for, such as "an eigendecomposition".
    """
    free = memory.available() if limit is None else int(limit * GIB)
    if needed > free:
        sizes = f"needs {needed / GIB:.1f} GiB and {free / GIB:.1f} GiB are free"
        raise UserError(
            f"{what} of {n:,} training images {sizes}: "
            "use fewer (--train) or more memory, or say with solve.memory how many GiB there are"
        )


def room_ahead(place: Place, n: int) -> bool:
    """Whether the next Gram matrix (n, n), float32, may be read from the disk while one is on the GPU."""
    return place.device == "cuda" and memory.available() >= place.host + 4 * n * n
