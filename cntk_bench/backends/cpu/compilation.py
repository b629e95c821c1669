"""How the CPU backend has its functions compiled by Numba, and how it keeps the compiled code.

Numba's own cache (`cache=True`) makes a program fail if it cannot be written or read: no writable folder, a
full disk, a truncated file. The cache here is only a convenience: whatever is wrong with it, the function is
compiled again, and a damaged file is replaced. Numba's configuration, which the whole process shares, is not
changed.
"""

import hashlib
import inspect
import logging
import os
import pickle
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import llvmlite
import numba
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.extending import intrinsic

from cntk_bench.errors import UserError

log = logging.getLogger(__name__)

DIGEST = hashlib.sha256().digest_size


@cast(Any, intrinsic)  # its type hints demand the context, which Numba itself passes, at every call
def wide_vectors(typing_context: Any) -> tuple[Any, Callable[..., Any]]:
    """Compile the function that calls this with vectors of 512 bits, where the CPU has them.

    LLVM prefers 256 bits on many CPUs that have 512, for the sake of the oldest ones, and would split each
    vector of `lanes` in two.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # llvmlite knows no attributes with a value, so `add` of its own class would refuse this one.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return numba.types.void(), generate


def machine() -> tuple:
    """What the bits depend on besides the code: architecture, CPU, its features; versions of Numba, LLVM."""
    codegen = cpu_target.target_context.codegen()
    return *codegen.magic_tuple(), numba.__version__, llvmlite.binding.llvm_version_info


def keep_code(function: Any) -> Any:
    """Keep the compiled code of a Numba function for later processes; returns the function."""
    if not hasattr(function, "py_func"):  # Numba has not compiled it
        raise UserError(
            "NUMBA_DISABLE_JIT is set (or disable_jit in .numba_config.yaml of the current folder), and "
            "without its compiler there is no cpu backend: unset it"
        )
    function._cache = CodeCache(function.py_func)
    return function


def folders() -> Iterator[Path]:
    """Folders where compiled code may be kept, in order of preference; they need not exist."""
    if chosen := getattr(numba.config, "CACHE_DIR", None):  # the environment variable NUMBA_CACHE_DIR
        yield Path(chosen)
    yield Path(__file__).parent / "__pycache__"
    with suppress(RuntimeError):  # no home
        chosen = os.environ.get("XDG_CACHE_HOME", "")  # which counts only where it is absolute
        yield (Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache") / "cntk-bench"


class CodeCache(NullCache):
    """A cache of compiled code, with a file per signature and CPU.

    Each file has a digest of its content and of what that was compiled from; one that does not match counts
    as missing.

    Parameters
    ----------
    function : function
        The Python function. Its code is compiled from its source file and the files beside it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        source = Path(inspect.getfile(function))
        self.name, self.source = f"{source.stem}.{function.__name__}", source
        self.owners = {0, os.geteuid()}
        with suppress(OSError):
            self.owners.add(source.stat().st_uid)  # who could change the source may change the code
        self.warned = False
        self.began = perf_counter()

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The cached code for a signature, or None."""
        context.refresh()
        name, key = self._key(signature, context.codegen())
        for folder in folders():
            try:
                code = self._read(folder / name, key)
                return CompileResult._rebuild(context, *pickle.loads(code))
            except FileNotFoundError:
                continue
            except Exception as error:  # whatever it is, compiling anew mends it
                log.info("compiled code in %s is not used: %s", folder, error)
        self.began = perf_counter()
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Save new code in the first writable folder; if there is none, warn once."""
        seconds = perf_counter() - self.began
        name, key = self._key(signature, result.codegen)
        code = dumps(result._reduce())
        problem = "no folder"
        for folder in folders():
            try:
                return _write(folder / name, hashlib.sha256(key + code).digest() + code)
            except OSError as error:
                problem = f"{error.strerror or error}: {str(folder)[:80]}"
        if not self.warned:
            self.warned = True
            log.warning(
                "compiled code cannot be kept (%s), so that each start compiles for %.0f s: "
                "set NUMBA_CACHE_DIR to a folder that can be written",
                problem,
                seconds,
            )

    def _key(self, signature: Any, codegen: Any) -> tuple[str, bytes]:
        """A file's name, and the key that decides whether its code is still valid."""
        place = (str(self.source), sys.implementation.cache_tag, str(signature), codegen.magic_tuple())
        try:  # with the files beside it, whose functions may be compiled into its own
            text = b"".join(file.read_bytes() for file in sorted(self.source.parent.glob("*.py")))
        except OSError:
            text = b""  # compiled without its source
        settings = [getattr(numba.config, name, None) for name in ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")]
        versions = numba.__version__, llvmlite.__version__, sys.version
        made_from = (*versions, *map(str, settings), hashlib.sha256(text).hexdigest())
        name = hashlib.sha256(repr(place).encode()).hexdigest()[:24]
        return f"{self.name}-{name}.nbc", repr((place, made_from)).encode()

    def _read(self, path: Path, key: bytes) -> bytes:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_uid not in self.owners:
            raise ValueError("not a file, or of another user")
        content = path.read_bytes()
        if hashlib.sha256(key + content[DIGEST:]).digest() != content[:DIGEST]:
            raise ValueError("damaged, or of another version")
        return content[DIGEST:]


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically, even if other processes write it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.new")
    try:
        with open(new, "xb") as file:
            file.write(content)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
