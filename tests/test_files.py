"""Files of a run are written whole, through no link, and locked where there are locks."""

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest

from cntk_bench import files, lock
from cntk_bench.errors import UserError
from cntk_bench.files import flush, open_own, same_file, write_whole


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "record.json").symlink_to(victim)
    write_whole(tmp_path / "record.json", "größe")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "record.json").is_symlink()
    assert (tmp_path / "record.json").read_bytes() == "größe".encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["record.json", "victim"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left to write .*free some"):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hardlink", "folder", "fifo"])
def test_what_is_not_our_own_plain_file_is_refused_and_left_alone(tmp_path, kind):
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
    with pytest.raises(UserError, match="not a plain file of this run.*remove it"):
        open_own(path, os.O_RDWR)
    with pytest.raises(UserError), lock.held(path):
        pass
    assert victim.read_text() == "precious" and not (tmp_path / "nowhere").exists()


def test_a_file_that_was_moved_or_replaced_is_noticed(tmp_path):
    handle = open_own(tmp_path / "a", os.O_RDWR)
    assert same_file(handle, tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert not same_file(handle, tmp_path / "a")
    (tmp_path / "a").write_text("another")
    assert not same_file(handle, tmp_path / "a")
    os.close(handle)


def test_a_directory_that_cannot_be_flushed_is_used_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("")

    def refuse(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    flush(tmp_path)
    with pytest.raises(OSError):
        flush(tmp_path / "a")


def hold(path, ready, go):
    code = (
        "import sys\nfrom cntk_bench import lock\n"
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
        other.kill()  # the kernel frees its lock
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


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "_warned", set())
    for _ in range(2):
        with lock.held(tmp_path / "lock"):
            pass
    (warning,) = caplog.messages
    assert "no file locks" in warning and "no other process" in warning


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
