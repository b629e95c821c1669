"""The right of one process to write, by a lock that the kernel frees even if the process is killed."""

import errno
import fcntl
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.system.files import open_own, same_file, writing
from cntk_bench.text import short

log = logging.getLogger(__name__)

# What file systems without locks say: Lustre mounted without them, some network and user-space ones.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_warned: set[int] = set()


@contextmanager
def held(path: str | Path, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, which is made where it is missing and stays afterwards.

    Gives True; where the file system has no locks, a warning says so, nothing keeps a second process
    out, and it gives False.

    Parameters
    ----------
    path : path-like
    wait : bool
        Wait until another process frees it, instead of an error.

    Raises
    ------
    UserError
        If another process holds it and `wait` is false, or it cannot be written.
    """
    path = Path(path)
    while True:
        with writing(path):
            handle = open_own(path, os.O_RDWR)
        try:
            alone = _take(handle, path, wait)
            if not same_file(handle, path):  # removed or replaced while we waited
                continue
            yield alone
            return
        finally:
            os.close(handle)


def _take(handle: int, path: Path, wait: bool) -> bool:
    alone = True
    with writing(path):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(
                f"another run ({_holder(handle)}) is writing {short(str(path.parent))}: "
                "wait for it to end, or use another output directory"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            _warn_once(path, error)
            alone = False
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return alone


def _holder(handle: int) -> str:
    """The process that a lock file names; anybody may have written anything there."""
    found = re.fullmatch(rb"(process \d{1,10} on [\w.-]{1,64})\n", os.pread(handle, 200, 0))
    return found[1].decode() if found else "one that is starting, or that does not say which"


def _warn_once(path: Path, error: OSError) -> None:
    device = os.stat(path.parent).st_dev
    if device not in _warned:
        _warned.add(device)
        log.warning(
            "the file system of %s has no file locks (%s): make sure that no other process writes there",
            short(str(path.parent)), error.strerror,
        )  # fmt: skip
