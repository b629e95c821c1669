"""Exclusive or shared file locks, which the operating system releases even if a process is killed."""

import errno
import fcntl
import logging
import math
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cntk_bench.errors import UserError
from cntk_bench.system.files import open_own, read_plain, same_file, write_atomic, writing
from cntk_bench.text import short

log = logging.getLogger(__name__)

# Errors of file systems without locks: Lustre mounted without them, some network and user-space ones.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
# Errors if another process holds the lock: an SMB server denies access then, as it may for other reasons.
HELD = (errno.EWOULDBLOCK, errno.EACCES)
_warned: set[int] = set()
HOLDER = re.compile(rb"(process \d{1,10} on [\w.-]{1,64})\n")  # what the file says
PAUSE = 0.05  # seconds between two tries
DENIED = 60.0  # seconds to wait at most where access is denied


class Held(UserError):
    """Another process has the lock."""


@contextmanager
def held(path: str | Path, wait: float = 0.0, shared: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, which is created if it is missing and not removed afterwards.

    A file with a second name is replaced by a new one, and not written: backups by `cp -al` make such names,
    but others may also have planted a file there that they may not change themselves.

    Yields True. If the file system has no locks, warns and yields False; then nothing keeps a second
    process out.

    Parameters
    ----------
    path : path-like
    wait : float
        Seconds to wait for another process to release the lock before `Held` is raised.
    shared : bool
        Take a shared lock, which keeps out only processes that want an exclusive one.

    Raises
    ------
    Held
        If another process holds the lock.
    UserError
        If the file cannot be written.
    """
    path, end = Path(path), time.monotonic() + wait
    while True:
        with writing(path):
            handle = open_own(path, os.O_RDWR, linked=True)
        try:
            linked = os.fstat(handle).st_nlink > 1
            alone = _take(handle, path, end, shared and not linked)
            if not same_file(handle, path):  # removed or replaced while we waited
                continue
            if linked:  # held by nobody else now, so another file can take its place
                write_atomic(path, "")
                continue
            _sign(handle, path)
            yield alone
            return
        finally:
            os.close(handle)


def _take(handle: int, path: Path, end: float, shared: bool) -> bool:
    alone = True
    with writing(path):
        try:
            _flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, end)
        except OSError as error:
            if error.errno in HELD:
                raise Held(
                    f"another run ({_holder(handle)}) is writing {short(str(path.parent))}: "
                    "wait for it to end, or use another output directory"
                ) from None
            if error.errno not in NO_LOCKS:
                raise
            _warn_once(path, error)
            alone = False
    return alone


def _sign(handle: int, path: Path) -> None:
    with writing(path):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _flock(handle: int, kind: int, end: float) -> None:
    ends = {errno.EWOULDBLOCK: end, errno.EACCES: min(end, time.monotonic() + DENIED)}
    while True:
        try:
            return fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() >= ends.get(error.errno or 0, -math.inf):
                raise
            time.sleep(PAUSE)


def _holder(handle: int) -> str:
    """The process that a lock file names, if well formed: anybody may have written anything there."""
    found = HOLDER.fullmatch(os.pread(handle, 200, 0))
    return found[1].decode() if found else "one that is starting, or that does not say which"


def was_held(path: str | Path) -> bool:
    """Whether a file is a lock that some process has held, by what it says."""
    try:
        return HOLDER.fullmatch(read_plain(path, 200)) is not None
    except OSError:
        return False


def _warn_once(path: Path, error: OSError) -> None:
    device = os.stat(path.parent).st_dev
    if device not in _warned:
        _warned.add(device)
        log.warning(
            "the file system of %s has no file locks (%s): make sure that no other process writes there",
            short(str(path.parent)), error.strerror,
        )  # fmt: skip
