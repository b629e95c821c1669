"""A stand-in for the GPU: the kernels' own source text, compiled for the CPU and run over NumPy arrays.

`Emulator` has the interface of `cntk_bench.backends.cuda.Gpu`, so that the backend's host code runs
unchanged. The compiler is $CXX, g++, c++ or clang++, or else that of the `ziglang` package.
"""

import atexit
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache, cached_property
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
FORWARD, REVERSED, SHUFFLED = range(3)  # the order in which lanes and warps take turns between barriers
SHARED_LIMIT = 227 * 1024  # bytes that a block of an H200 may use
FLAGS = ("-std=c++14", "-O2", "-w", "-shared", "-fPIC", "-ffp-contract=fast", "-march=native")

# One entry point for each kernel: ctypes calls it with the arguments' addresses.
ENTRY = """
extern "C" const char* launch_{name}(unsigned blocks, unsigned threads, size_t shared_bytes, void** arguments,
                                     int order, uint64_t seed)
{{
    const unsigned grid[] = {{blocks, 1, 1}}, block[] = {{threads, 1, 1}};
    return emulator::launch({name}, grid, block, {shared}, shared_bytes, {limit}, arguments, order, seed);
}}
"""


@cache
def compiler() -> tuple[str, ...] | None:
    """The command of a C++ compiler, or None."""
    if os.environ.get("CXX"):
        return tuple(os.environ["CXX"].split())
    for name in ("g++", "c++", "clang++"):
        if shutil.which(name):
            return (name,)
    try:
        import ziglang  # noqa: F401
    except ImportError:
        return None
    return (sys.executable, "-m", "ziglang", "c++")


def source_for_cpu(text: str) -> str:
    """The kernels' text, preceded by the header and followed by an entry point for each kernel."""
    storage, shared, limit = "", "nullptr", "0"
    dynamic = re.search(r"extern __shared__ (\w+) (\w+)\[\];", text)
    if dynamic:  # in C++ this memory needs a definition
        kind, shared = dynamic.groups()
        storage = (
            f'extern "C" {{ alignas(16) thread_local {kind} {shared}[{SHARED_LIMIT} / sizeof({kind})]; }}\n'
        )
        limit = f"sizeof({shared})"
    kernels = re.findall(r"__global__ void(?: __launch_bounds__\([^)]*\))?\s+(\w+)\(", text)
    entries = [ENTRY.format(name=name, shared=shared, limit=limit) for name in kernels]
    return "\n".join([f'#include "{HEADER}"', storage, text, *entries])


@cache
def workshop() -> Path:
    """A folder for sources and libraries, removed at exit."""
    folder = tempfile.mkdtemp(prefix="cntk-emulated-")
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


class Library:
    """One source text compiled with one set of -D options, in the background until it is needed."""

    def __init__(self, text, defines):
        stem = workshop() / str(len(list(workshop().glob("*.cpp"))))
        self.path = stem.with_suffix(".so")
        stem.with_suffix(".cpp").write_text(source_for_cpu(text))
        command = [*compiler(), *FLAGS, *defines, "-o", str(self.path), str(stem.with_suffix(".cpp"))]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    @cached_property
    def loaded(self) -> ctypes.CDLL:
        _, errors = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"{' '.join(self.process.args)}\n{errors}")
        return ctypes.CDLL(str(self.path))


library = cache(Library)


class Emulator:
    """Runs kernels one thread at a time.

    Parameters
    ----------
    order : {FORWARD, REVERSED, SHUFFLED}
        The order in which lanes and warps take turns between two barriers.
    seed : int
        The seed of the order SHUFFLED.
    ulps : int
        How far a fast quotient or square root may be off, in units of the last place.
    free_bytes, shared_bytes : int
        The free memory that it reports, and the shared memory of a multiprocessor.
    """

    def __init__(self, order=FORWARD, seed=1, ulps=0, free_bytes=1 << 30, shared_bytes=228 << 10):
        self.order, self.seed, self.ulps = order, seed, ulps
        self._free_bytes, self._shared_bytes = free_bytes, shared_bytes
        self.launches = []  # (kernel's name, number of blocks)

    def upload(self, array):
        return np.ascontiguousarray(array)

    def empty(self, shape, dtype):
        return np.full(shape, np.nan, dtype)  # NaN, so that elements which are never written show up

    def download_later(self, array):
        return lambda: array

    def free_bytes(self):
        return self._free_bytes

    def shared_bytes(self):
        return self._shared_bytes

    def issue(self):
        return 90, 132, 1.98e9

    def module(self, text, options):
        defines = (option for option in options if option.startswith("-D"))
        compiled = library(text, (*defines, f"-DULPS={self.ulps}"))

        def launch(name, blocks, threads, arguments, shared_bytes=0):
            self.launches.append((name, blocks))
            entry = getattr(compiled.loaded, f"launch_{name}")
            entry.restype = ctypes.c_char_p
            # As in CUDA, arguments are passed by the address of their value; an array's value is its address.
            values = [np.intp(a.ctypes.data) if a.ndim else a for a in arguments]
            values = [np.atleast_1d(value) for value in values]
            addresses = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
            error = entry(
                ctypes.c_uint(blocks), ctypes.c_uint(threads), ctypes.c_size_t(shared_bytes), addresses,
                ctypes.c_int(self.order), ctypes.c_uint64(self.seed),
            )  # fmt: skip
            if error:
                raise RuntimeError(f"{name}: {error.decode()}")

        return launch
