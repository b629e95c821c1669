"""Files of a run are written as a whole, never through links, and locked where locks exist."""

import errno
import fcntl
import logging
import os
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from cntk_bench.cli import failures
from cntk_bench.errors import UserError
from cntk_bench.system import files, lock
from cntk_bench.system.files import flush, is_plain, open_own, read_plain, same_file, write_atomic, writing


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "record.json").symlink_to(victim)
    write_atomic(tmp_path / "record.json", "größe")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "record.json").is_symlink()
    assert (tmp_path / "record.json").read_bytes() == "größe".encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["record.json", "victim"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a", "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left to write .*free some"):
        write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_killed_processes_left_is_removed_and_what_others_write_stays(tmp_path):
    names = [f".a-{uuid.UUID(int=number).hex}.partial" for number in range(4)]
    file, folder, link, busy = (tmp_path / name for name in names)
    file.write_text("half")
    (folder / "within").mkdir(parents=True)
    link.symlink_to(tmp_path / "b")
    (tmp_path / "b").touch()
    (tmp_path / ".mine.partial").touch()
    busy.mkdir()
    handle = os.open(busy, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with files.atomic_file(tmp_path / "c") as other:
        other.write(b"whole")
        files.remove_partial(tmp_path)
    os.close(handle)
    left = {link.name, busy.name, ".mine.partial", "b", "c"}
    assert {path.name for path in tmp_path.iterdir()} == left and (tmp_path / "c").read_text() == "whole"
    files.remove_partial(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == left - {busy.name}


@pytest.mark.parametrize("content", ["größe", b"\xff\x00bytes"])
def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_call_returns(
    tmp_path, monkeypatch, content
):
    events, replace = [], os.replace

    def fsync(handle):
        events.append(tmp_path if os.path.samestat(os.fstat(handle), os.stat(tmp_path)) else size(handle))

    def size(handle):
        return os.fstat(handle).st_size

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *names: (events.append("replace"), replace(*names)))
    write_atomic(tmp_path / "a", content)
    data = content if isinstance(content, bytes) else content.encode()
    assert (tmp_path / "a").read_bytes() == data
    assert events == [len(data), "replace", tmp_path]


def test_new_files_have_the_mode_that_the_user_asks_for(tmp_path):
    before = os.umask(0o007)
    try:
        write_atomic(tmp_path / "a", "")
        os.close(open_own(tmp_path / "b", os.O_RDWR))
        os.umask(0)
        write_atomic(tmp_path / "c", "")
        os.close(open_own(tmp_path / "d", os.O_RDWR))
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in "abcd"]
    assert modes == [0o660, 0o660, 0o666, 0o666]


def test_a_link_planted_where_a_file_is_being_written_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".a-{uuid.UUID(int=7).hex}.partial").symlink_to(victim)
    with pytest.raises(UserError, match="cannot write .*File exists"):
        write_atomic(tmp_path / "a", "new")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["open", "replace"])
def test_the_reason_why_a_file_cannot_be_written_is_told(tmp_path, monkeypatch, name):
    write_atomic(tmp_path / "a", "old")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
        patch.setattr(os, name, refuse)
        write_atomic(tmp_path / "a", "new")
    assert str(caught.value).endswith(
        "(Permission denied): make it writable, or use another output directory"
    )
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_a_quota_or_a_limit_that_is_full(code):
    with pytest.raises(UserError, match=r"no space left to write a .*: free some and run the same command"):
        with writing("a"):
            raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN])
def test_what_the_process_has_no_more_of_is_not_the_paths_fault(code):
    """A path is not to blame for resources the process has run out of; `failures` has a remedy for each."""
    with pytest.raises(OSError) as caught, writing("a"):
        raise OSError(code, os.strerror(code))
    assert caught.value.errno == code and set(failures._BY_NUMBER) == set(files.EXHAUSTED)


def test_a_link_to_nothing_is_told(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"link is a link to what is not there: remove it, or make"):
        with writing(tmp_path / "link"):
            (tmp_path / "link").mkdir(parents=True, exist_ok=True)


def test_no_folder_for_temporary_files(monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", None)
    monkeypatch.setattr(files.tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(UserError, match="no folder for temporary files .*: set TMPDIR to one that can"):
        files.temporary()


def test_an_error_without_a_number_is_told_by_its_words():
    with pytest.raises(UserError, match=r"cannot write a \(the library's words\)"), writing("a"):
        raise OSError("the library's words")


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_APPEND])
@pytest.mark.parametrize("kind", ["symlink", "dangling", "hardlink", "folder", "fifo"])
def test_what_is_not_our_own_plain_file_is_refused_and_left_alone(tmp_path, kind, flags):
    victim, path = tmp_path / "victim", tmp_path / "lock"
    victim.write_text("precious")
    match kind:
        case "symlink":
            path.symlink_to(victim)
        case "dangling":
            path.symlink_to(tmp_path / "nowhere")
        case "hardlink":
            os.link(victim, path)
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
    linked = "lock has a second name, a hard link: remove this one$"
    words = linked if kind == "hardlink" else "not a plain file of this run.*remove it"
    with pytest.raises(UserError, match=words):
        open_own(path, flags)
    if kind == "hardlink":  # a lock alone has no content to lose, and gets a new file
        with lock.held(path):
            assert not path.samefile(victim)
    else:
        with pytest.raises(UserError, match=words), lock.held(path):
            pass
    assert victim.read_text() == "precious" and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_with_a_second_name_is_replaced_only_when_nobody_holds_it(tmp_path, shared):
    path, backup = tmp_path / "lock", tmp_path / "backup"
    with lock.held(path, shared=shared):
        os.link(path, backup)  # as `cp -al` does while a process computes
        for kind in (False, True):
            with pytest.raises(lock.Held), lock.held(path, shared=kind):
                pass
        assert path.samefile(backup)
    before = backup.read_bytes()
    with lock.held(path, shared=shared), lock.held(backup):
        assert not path.samefile(backup) and path.read_bytes() == before
        with pytest.raises(lock.Held), lock.held(path):
            pass


def test_what_the_system_says_of_a_file_of_our_own_is_not_called_a_link(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_own(tmp_path / "missing" / "lock", os.O_RDWR)


def test_no_file_stays_open(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("")
    os.link(tmp_path / "a", tmp_path / "b")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(UserError, match="remove this one"):
            open_own(tmp_path / "a", os.O_RDWR)
        flush(tmp_path)
        flush(tmp_path / "a")
        write_atomic(tmp_path / "c", "")
        read_plain(tmp_path / "c")
        with pytest.raises(OSError):
            read_plain(tmp_path)
        with lock.held(tmp_path / "lock"):
            pass
    assert os.listdir("/proc/self/fd") == before


def test_a_plain_file_is_read_whole_through_a_link_too(tmp_path):
    (tmp_path / "a").write_bytes(b"\x00\xffabc")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_plain(tmp_path / "a") == read_plain(str(tmp_path / "b")) == b"\x00\xffabc"
    assert is_plain(tmp_path / "a") and is_plain(tmp_path / "b")


def test_what_is_not_there_cannot_be_read_and_keeps_nobody_waiting(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("nothing", "dangling"):
        with pytest.raises(FileNotFoundError):
            read_plain(tmp_path / name)
        assert is_plain(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "code"), [("folder", errno.EISDIR), ("fifo", errno.EINVAL), ("device", errno.EINVAL)]
)
def test_what_is_no_plain_file_is_not_read(tmp_path, kind, code):
    path = tmp_path / "a" if kind != "device" else Path("/dev/zero")
    path.mkdir() if kind == "folder" else os.mkfifo(path) if kind == "fifo" else None
    with pytest.raises(OSError) as caught:
        read_plain(path)
    assert caught.value.errno == code and not is_plain(path)


def test_a_file_above_its_limit_is_not_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert read_plain(path, 3) == b"abc"
    with pytest.raises(OSError, match="more than 2 bytes") as caught:
        read_plain(path, 2)
    assert caught.value.errno == errno.EFBIG
    os.truncate(path, 2**30 + 1)  # a sparse file: it takes no space
    with pytest.raises(OSError, match=f"more than {2**30} bytes"):
        read_plain(path)


def test_a_file_that_was_moved_or_replaced_is_noticed(tmp_path):
    handle = open_own(tmp_path / "a", os.O_RDWR)
    assert same_file(handle, tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert not same_file(handle, tmp_path / "a")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    assert not same_file(handle, tmp_path / "a")
    (tmp_path / "a").unlink()
    (tmp_path / "a").write_text("another")
    assert not same_file(handle, tmp_path / "a")
    os.close(handle)


UNFLUSHED = [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EACCES]


@pytest.mark.parametrize("code", UNFLUSHED)
def test_a_directory_that_cannot_be_flushed_is_used_as_it_is(tmp_path, monkeypatch, caplog, code):
    (tmp_path / "a").write_text("")

    def refuse(_):
        raise OSError(code, os.strerror(code))

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(os, "fsync", refuse)
    flush(tmp_path)
    assert f"cannot be flushed to the disk ({os.strerror(code)})" in caplog.text
    with pytest.raises(OSError):
        flush(tmp_path / "a")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_is_told_of_a_directory_too(tmp_path, monkeypatch, code):
    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError) as caught:
        flush(tmp_path)
    assert caught.value.errno == code


def hold(path, ready, go):
    code = (
        "import sys\nfrom cntk_bench.system import lock\n"
        f"with lock.held({str(path)!r}):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdin=ready, stdout=go, text=True)


def test_a_second_process_is_told_who_holds_the_lock(tmp_path):
    other = hold(tmp_path / "lock", subprocess.PIPE, subprocess.PIPE)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"another run .process {other.pid} on .*wait for it to end"):
            with lock.held(tmp_path / "lock"):
                pass
        waited = threading.Event()

        def wait():
            with lock.held(tmp_path / "lock", wait=True):
                waited.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not waited.is_set()
    finally:
        other.kill()  # its lock ends with it
        other.communicate()
    thread.join(60)
    assert waited.is_set()


@pytest.mark.parametrize("content", [b"\x1b]0;gotcha\x07\n" * 9, b"x" * 2**20, b"\xff\xfe", b""])
def test_what_stands_in_a_lock_is_not_believed(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with open(tmp_path / "lock") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(UserError) as caught, lock.held(tmp_path / "lock"):
            pass
    assert "does not say which" in str(caught.value) and len(str(caught.value)) < 300 + len(str(tmp_path))
    assert str(caught.value).isprintable()


def test_a_lock_names_its_holder_alone(tmp_path):
    (tmp_path / "lock").write_text("what an earlier and longer-winded process left " * 9)
    with lock.held(tmp_path / "lock") as alone:
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
        assert alone is True
    assert (tmp_path / "lock").exists()


def test_a_lock_is_freed_by_an_error_which_stays_what_it_is(tmp_path):
    with pytest.raises(OSError, match="of the body"), lock.held(tmp_path / "lock"):
        raise OSError("of the body")
    with lock.held(tmp_path / "lock") as alone:
        assert alone


def test_a_lock_that_cannot_be_made(tmp_path):
    with pytest.raises(UserError, match="cannot write .*No such file.*use another output directory"):
        with lock.held(tmp_path / "missing" / "lock"):
            pass


NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL]


@pytest.mark.parametrize("code", NO_LOCKS)
def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "_warned", set())
    for _ in range(2):
        with lock.held(tmp_path / "lock") as alone:
            assert alone is False
    (warning,) = caplog.messages
    assert "no file locks" in warning and "make sure that no other process writes there" in warning


def test_a_disk_that_fails_is_not_called_one_without_locks(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(UserError, match="cannot write .*Input/output error.*use another output directory"):
        with lock.held(tmp_path / "lock"):
            pass
    assert not caplog.messages


def test_a_server_that_denies_access_to_what_is_locked_is_waited_for(tmp_path, monkeypatch):
    """As SMB servers do: a denied lock is another process's, and not a file that cannot be written."""
    take, tries = fcntl.flock, []

    def deny(handle, kind):
        tries.append(kind)
        if len(tries) < 4:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return take(handle, kind)

    monkeypatch.setattr(fcntl, "flock", deny)
    with pytest.raises(lock.Held, match="another run .* is writing"), lock.held(tmp_path / "lock"):
        pass
    with lock.held(tmp_path / "lock", wait=60) as alone:
        assert alone and len(tries) == 4
    del tries[:]
    monkeypatch.setattr(lock, "DENIED", 0.0)
    with pytest.raises(lock.Held), lock.held(tmp_path / "lock", wait=float("inf")):
        pass


@pytest.mark.parametrize("name", ["a" * 255, "\N{GREEK SMALL LETTER THETA}" * 127])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, name):
    write_atomic(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    left = tmp_path / f".{'a' * 100}-{uuid.UUID(int=1).hex}.partial"
    left.touch()
    files.remove_partial(tmp_path, name)
    assert left.exists() == (name[0] != "a")
    with pytest.raises(UserError, match="File name too long.*: use a shorter name"):
        write_atomic(tmp_path / (name + "aa"), "whole")


def test_a_file_system_that_cannot_flush_is_named_as_such(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match="Invalid argument.*file system cannot do this, so use an output dir"):
        write_atomic(tmp_path / "a", "whole")


def test_a_lock_removed_while_waiting_is_taken_anew(tmp_path):
    path = tmp_path / "lock"
    first = files.open_own(path, os.O_RDWR)
    fcntl.flock(first, fcntl.LOCK_EX)
    entered = threading.Event()

    def wait():
        with lock.held(path, wait=True):
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    path.unlink()
    os.close(first)
    thread.join(60)
    assert entered.is_set() and path.exists()
