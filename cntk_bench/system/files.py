"""Files written atomically, never through a link, and flushed to disk."""

import errno
import fcntl
import glob
import json
import logging
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from cntk_bench.errors import UserError
from cntk_bench.system import paths
from cntk_bench.text import short

log = logging.getLogger(__name__)

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)  # not caused by a path
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES)
PARTIAL = ".partial"  # suffix of files that are being written
HEAD = 100  # bytes of the final name in theirs: a name has at most 255, or 143 where names are encrypted


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn OSErrors of writing to a path into a UserError of one line, with a remedy.

    Errors with another remedy pass: exhausted resources of the process, and a deleted current folder.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        if error.errno in EXHAUSTED or error.errno == errno.ENOENT and paths.current() is None:
            raise
        if error.errno == errno.EEXIST and os.path.islink(path) and not os.path.exists(path):
            raise UserError(
                f"{short(str(path))} is a link to what is not there: remove it, or make what it points to"
            ) from error
        if error.errno in NO_SPACE:
            raise UserError(
                f"no space left to write {short(str(path))} ({reason}): free some and run the same command "
                "again; what is finished is kept"
            ) from error
        raise UserError(f"cannot write {short(str(path))} ({reason}): {_remedy(error)}") from error


def _remedy(error: OSError) -> str:
    if error.errno == errno.ENAMETOOLONG:
        return "use a shorter name"
    if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return "its file system cannot do this, so use an output directory on another one"
    return "make it writable, or use another output directory"


def temporary() -> Path:
    """The folder for temporary files; UserError if there is none that can be written."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise UserError(
            "no folder for temporary files can be written (/tmp, /var/tmp, the current one): set TMPDIR to "
            "one that can"
        ) from None


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write a file atomically: at any moment, it is either the whole old one or the whole new one.

    Parameters
    ----------
    path : path-like
        If this is a link, it is replaced, and what it points to stays as it is.
    content : bytes or str
        A string is written as UTF-8, whatever the locale.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    with atomic_file(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Like `write_atomic`, piece by piece: yield a file to fill, which is then renamed to the path.

    The file can also be read and sought. After an error, what was there before remains. While it is written,
    the file is locked, so that no process takes it for the leftover of a killed one (`remove_partial`).
    """
    path = Path(path)
    with writing(path):
        new, handle = _begun(path)
        try:
            with open(handle, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        flush(path.parent)


def _begun(path: Path) -> tuple[Path, int]:
    """Make a new file next to a path; return its path and its handle, open and locked."""
    while True:
        new = path.with_name(f".{_head(path.name)}-{uuid.uuid4().hex}{PARTIAL}")
        handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if try_lock(handle) is not False and os.path.lexists(new):
            return new, handle
        os.close(handle)  # `remove_partial` elsewhere came before our lock


def _head(name: str) -> str:
    """The beginning of a name, short enough to be part of another one."""
    return os.fsdecode(os.fsencode(name)[:HEAD])


def require_no_link(folder: Path) -> None:
    """Raise UserError if a folder is a link, which others may have made to have us write elsewhere."""
    if folder.is_symlink():
        raise UserError(f"{short(str(folder))} is a link: put the folder itself there")


def require_own(folder: Path, mark: str) -> None:
    """Raise UserError if a folder has files, but not `mark`, which ours have: some might be replaced."""
    found = os.listdir(folder) if folder.is_dir() else []
    if mark not in found and any(not name.startswith(".") for name in found):
        raise UserError(
            f"{short(str(folder))} has files that cntk-bench did not write, and might replace: use another "
            "output directory, or move them away"
        )


def remove_partial(folder: str | Path, begin: str = "") -> None:
    """Remove partial files and folders of killed processes, which are recognized by not being locked.

    Only those whose final names begin with `begin` are removed.
    """
    for path in Path(folder).glob(f".{glob.escape(_head(begin))}*-{'[0-9a-f]' * 32}{PARTIAL}"):
        with suppress(OSError):
            inside = path.is_dir() and not path.is_symlink()
            handle = os.open(path, (os.O_RDONLY if inside else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if try_lock(handle):
                    shutil.rmtree(path) if inside else path.unlink()
            finally:
                os.close(handle)


def try_lock(handle: int, shared: bool = False) -> bool | None:
    """Try to lock an open file or folder, without waiting, until it is closed.

    Returns True if it is locked, False if another process holds the lock, and None if the file system has no
    locks.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def open_own(path: str | Path, flags: int, linked: bool = False) -> int:
    """Open or make a file of our own, as a file descriptor; refuse anything else at its path.

    A link (symbolic or hard), a folder, a pipe or a device could have been put there by others with
    write access to the directory, to make us change a file that they may not. With `linked`, a hard link is
    opened, too; the caller must not write to it.

    Raises
    ------
    UserError
        If the path is not a plain file, or has a second name.
    OSError
        For any other error of the operating system.
    """
    remedy = f"{short(str(path))} is not a plain file of this run, but a link or something else: remove it"
    try:
        handle = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise UserError(remedy) from None
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 and not linked:
        os.close(handle)
        second = f"{short(str(path))} has a second name, a hard link: remove this one"
        raise UserError(second if stat.S_ISREG(found.st_mode) else remedy)
    return handle


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as JSON, like `write_atomic`; ValueError if it has a number that is not finite."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_plain(path: str | Path, most: int = 2**30) -> bytes:
    """Read the bytes of a plain file, possibly through a link.

    Raises
    ------
    OSError
        For any error of the operating system; EINVAL for anything but a plain file, which could
        block for ever (a pipe, a device), and EFBIG for more than `most` bytes.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"more than {most} bytes", str(path))
        with open(handle, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(handle)


def is_plain(path: str | Path) -> bool:
    """Whether the path leads to a plain file or to nothing, so that reading cannot hang."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True


def same_file(handle: int, path: str | Path) -> bool:
    """Whether an open file is still at this path: its directory may have been moved or removed."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


@contextmanager
def no_write_by_others() -> Iterator[None]:
    """Make files in this context not writable by others (the umask gets 0o002 in addition).

    Whether the group may write is left to the umask, so that a group can share a directory.
    """
    before = os.umask(0o077)
    os.umask(before | 0o002)
    try:
        yield
    finally:
        os.umask(before)


def flush(path: str | Path) -> None:
    """Flush a file, or a directory's list of names, to disk.

    Some file systems cannot flush a directory; that is only logged, and a power cut may then lose
    the newest names.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED or not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise
        log.info("%s cannot be flushed to the disk (%s)", short(str(path)), error.strerror)
    finally:
        os.close(handle)
