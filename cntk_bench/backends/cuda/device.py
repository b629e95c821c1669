"""The few things the CUDA backend asks of a GPU, by way of CuPy."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cntk_bench.errors import UserError
from cntk_bench.text import one_line

Array = Any  # of CuPy
Launched = list[tuple[slice, slice, Callable[[], np.ndarray]]]  # rows, columns, what returns their numbers

OLDEST = 75  # oldest compute capability supported, x 10


def available() -> bool:
    """Whether CuPy is installed and sees a GPU."""
    try:
        import cupy

        return cupy.cuda.is_available()
    except (Exception, SystemExit):  # a broken driver raises whatever it likes; the answer is no
        return False


def machine() -> tuple:
    """What the bits depend on besides the code: the GPU's compute capability, and CUDA's compiler."""
    if not available():
        return ()
    import cupy

    return cupy.cuda.Device().compute_capability, cupy.cuda.nvrtc.getVersion()


def devices() -> list[str]:
    """The GPUs that this process sees, each as the variable CUDA_VISIBLE_DEVICES names it."""
    if not available():
        return []
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if named and all(name.startswith("MIG-") for name in named):
        return named  # parts of GPUs, of which CUDA shows a process only one
    return named[:count] if len(named) >= count else [str(number) for number in range(count)]


@contextmanager
def full_memory_explained() -> Iterator[None]:
    """Turn an out-of-memory error of the GPU into a UserError of one line."""
    try:
        yield
    except MemoryError as error:  # CuPy's is one, too
        raise UserError(f"the GPU's memory is full: free some, or use --backend cpu ({error})") from None


def launched(
    gpu: Any, shape: tuple[int, int], side: int, symmetric: bool, block: Callable[[slice, slice, bool], Array]
) -> Launched:
    """Launch a tile in blocks of at most side x side pairs.

    Parameters
    ----------
    gpu : Gpu, or what tests put in its place
    shape : tuple (n, m)
        Of the tile, in images.
    side : int
    symmetric : bool
        Blocks above the diagonal are left out.
    block : callable
        Called with rows, columns, and whether only i >= j are needed; launches that block and returns its
        numbers (readouts, rows, columns) on the device. Blocks of the same rows follow each other, beginning
        with the first column.

    Raises
    ------
    UserError
        If the GPU's memory is full.
    """
    found, (n, m) = [], shape
    with full_memory_explained():
        for i in range(0, n, side):
            for j in range(0, min(m, i + 1) if symmetric else m, side):
                rows, columns = slice(i, i + side), slice(j, j + side)
                numbers = block(rows, columns, symmetric and i == j)
                found.append((rows, columns, gpu.download_later(numbers)))
    return found


def downloaded(blocks: Launched) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield the rows, columns and numbers of the blocks that `launched` returned, as each block arrives."""
    for rows, columns, download in blocks:
        with full_memory_explained():
            numbers = download()
        yield rows, columns, numbers


class Gpu:
    """The current CUDA device.

    Raises
    ------
    UserError
        If CuPy, a working GPU or its compiler is missing.
    """

    def __init__(self) -> None:
        try:
            import cupy
        except (Exception, SystemExit) as error:  # not installed, or broken in any way
            raise UserError(
                f"the cuda backend cannot import CuPy ({one_line(error, 80) or type(error).__name__}): "
                "pip install 'cntk-bench[cuda13]' ([cuda12] for a CUDA 12 driver), or use --backend cpu"
            ) from None
        if not available():
            raise UserError(
                "the cuda backend found no NVIDIA GPU with a working driver: see nvidia-smi, "
                "or use --backend cpu"
            )
        device = cupy.cuda.Device()
        if int(device.compute_capability) < OLDEST:
            raise UserError(
                f"the cuda backend needs a GPU of compute capability {OLDEST / 10} or newer, this one has "
                f"{int(device.compute_capability) / 10}: use --backend cpu"
            )
        try:
            cupy.cuda.nvrtc.getVersion()
        except Exception as error:  # whatever the loader raises
            raise UserError(
                f"the cuda backend cannot load NVRTC, which compiles its kernels ({one_line(error, 80)}): "
                "pip install 'cntk-bench[cuda13]' ([cuda12] for a CUDA 12 driver), which brings it"
            ) from None
        self.cupy = cupy
        self.copies = cupy.cuda.Stream(non_blocking=True)

    def upload(self, array: np.ndarray) -> Array:
        return self.cupy.asarray(array)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return self.cupy.empty(shape, dtype)

    def download_later(self, array: Array) -> Callable[[], np.ndarray]:
        """Return a function that copies the array to the host, as left by what has been launched until now.

        The copy runs beside kernels launched since then, and does not wait for them.
        """
        ready = self.cupy.cuda.Event(disable_timing=True)
        ready.record()

        def download() -> np.ndarray:
            self.copies.wait_event(ready)
            return array.get(stream=self.copies)

        return download

    def free_bytes(self) -> int:
        return self.cupy.cuda.Device().mem_info[0] + self.cupy.get_default_memory_pool().free_bytes()

    def shared_bytes(self) -> int:
        """Shared memory of one multiprocessor."""
        return self.cupy.cuda.Device().attributes["MaxSharedMemoryPerMultiprocessor"]

    def issue(self) -> tuple[int, int, float]:
        """Compute capability x 10, multiprocessors, and the highest clock in Hz."""
        device = self.cupy.cuda.Device()
        properties = device.attributes
        clock = 1e3 * properties["ClockRate"]  # kHz
        return int(device.compute_capability), properties["MultiProcessorCount"], clock

    def module(self, text: str, options: tuple[str, ...]) -> Callable[..., None]:
        """Compile the text; returns a function of (kernel name, blocks, threads, arguments, shared bytes)."""
        compiled = self.cupy.RawModule(code=text, options=options)

        @cache  # looking a kernel up and setting its attributes at each launch would slow the host down
        def prepared(name: str, shared_bytes: int) -> Any:
            kernel = compiled.get_function(name)
            if shared_bytes:
                kernel.max_dynamic_shared_size_bytes = shared_bytes
                kernel.preferred_shared_memory_carveout = 100  # per cent: the kernels read little else
            return kernel

        def launch(name: str, blocks: int, threads: int, arguments: tuple, shared_bytes: int = 0) -> None:
            kernel = prepared(name, shared_bytes)
            kernel((blocks,), (threads,), arguments, shared_mem=shared_bytes)

        return launch
