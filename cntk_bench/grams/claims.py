"""Locks of a store in an object store, by heartbeats, since no lock there ends with its process.

    writers/WRITER   a process that may write tiles
    lock             the one process that may change what the store holds: makes, grows or repairs it

Each process rewrites its object every `BEAT` seconds and removes it at the end. The lock is made by a
conditional write, which the server grants to one process only. If a process was killed, its object no longer
changes: a process that it blocks watches the object for `LEASE` seconds, by a monotonic clock, and if nothing
changes goes on without it. A lock is then taken over by another conditional write, with a warning that names
the holder. No two machines' clocks are ever compared.

A holder that was merely suspended for so long finds that it has lost the lock, and ends. So does a writer
whose store was changed meanwhile (`segments`).
"""

import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

from cntk_bench.errors import UserError
from cntk_bench.system.bucket import Bucket, Unreachable
from cntk_bench.system.lock import Held
from cntk_bench.text import short

log = logging.getLogger(__name__)

BEAT = 5.0  # seconds between two heartbeats
LEASE = 30.0  # seconds without a heartbeat after which a process counts as dead
PATIENCE = 20.0  # seconds to wait for other processes that are alive
PAUSE = 0.5  # seconds between two checks
LOOK = 12.0  # seconds in which a live process shows a heartbeat or two
LOCK, WRITERS = "lock", "writers"
_warned: set[str] = set()


@contextmanager
def present(bucket: Bucket, name: str) -> Iterator[None]:
    """Show others, while in this context, that a writer of this name is alive.

    Raises
    ------
    UserError
        If the bucket cannot be written.
    """
    sign = f"{WRITERS}/{name}"
    bucket.put(sign, b"0")
    bucket = bucket.hurried()
    try:
        with _beating(lambda number: bucket.put(sign, str(number).encode())):
            yield
    finally:
        with suppress(UserError):
            bucket.delete([sign])


def signs(bucket: Bucket) -> set[str]:
    """Names of the writers that are alive, or that were killed and left their signs behind."""
    return set(_signs(bucket))


def alive(bucket: Bucket) -> set[str]:
    """Names of the writers that are alive; for display only.

    A sign written while we look tells the server's time, since our own clock may be wrong by days.
    """
    first, end = _signs(bucket), time.monotonic() + LOOK
    now = first
    while now and not now.items() - first.items():
        if time.monotonic() >= end:
            return set()
        time.sleep(PAUSE)
        now = _signs(bucket)
    since = max(now.values()) - timedelta(seconds=LEASE) if now else None
    return {name for name, changed in now.items() if since and changed >= since}


def _signs(bucket: Bucket) -> dict[str, datetime]:
    """Map each writer to the time of its last sign, by the server's clock."""
    return {one.name.partition("/")[2]: one.changed for one in bucket.list(WRITERS)}


def require_free(bucket: Bucket) -> None:
    """Wait until no process changes the store.

    Raises
    ------
    Held
        If a live process still does after `PATIENCE` seconds. One that gives no sign of life blocks nobody,
        since an unfinished change has no effect.
    """
    watch = _Watch()
    while (found := bucket.get(LOCK)) is not None and not watch.dead(found[1]):
        watch.require_patience(bucket, found[0])
        time.sleep(PAUSE)


@contextmanager
def held(bucket: Bucket) -> Iterator[Callable[[], None]]:
    """Hold the lock of a store; yield a function that raises UserError if the lock was lost.

    Raises
    ------
    Held
        If another process has the lock, or computes into the store.
    """
    claim = _Claim(bucket)
    claim.take()
    claim.hurry()
    try:
        with _beating(claim.renew):
            _require_no_writers(bucket)
            yield claim.require
    finally:
        claim.release()


class _Watch:
    """Tells from repeated looks at an object whether the process that rewrites it is alive."""

    def __init__(self) -> None:
        self._begun = self._since = time.monotonic()
        self._seen: object = None
        self._alive = False

    def dead(self, now: object) -> bool:
        """Whether nothing has changed for `LEASE` seconds; call it repeatedly with the current state."""
        if self._seen is not None and now != self._seen:
            self._alive, self._since = True, time.monotonic()
        self._seen = now
        return time.monotonic() - self._since >= LEASE

    def require_patience(self, bucket: Bucket, lock: bytes) -> None:
        if self._alive and time.monotonic() - self._begun >= PATIENCE:
            raise Held(
                f"another run ({_holder(lock)}) is changing {short(str(bucket))}: wait for it to end; if it "
                f"was killed, try again {LEASE:g} seconds later"
            )


def _require_no_writers(bucket: Bucket) -> None:
    """Refuse while other processes compute; remove the signs of killed ones."""
    first: dict[str, datetime] | None = None
    watch = _Watch()
    while found := _signs(bucket):
        if first is not None and not found.items() <= first.items():  # a newer sign
            raise Held(
                f"other processes ({short(', '.join(sorted(found)))}) compute into {short(str(bucket))}: "
                "wait for them to end"
            )
        if first is None:
            first = found
            log.warning("looking whether anybody still computes into %s", short(str(bucket)))
        if watch.dead(0):
            bucket.delete(f"{WRITERS}/{name}" for name in found)
            return
        time.sleep(PAUSE)


class _Claim:
    """Our claim to the lock object."""

    def __init__(self, bucket: Bucket):
        self._bucket, self._token, self._lost = bucket, uuid.uuid4().hex, False

    def take(self) -> None:
        watch = _Watch()
        try:
            while not self._won(None):
                found = self._bucket.get(LOCK)
                if found is not None and watch.dead(found[1]):
                    if self._won(found[1]):
                        log.warning(
                            "%s gave no sign of life for %g seconds: the lock of %s is taken from it",
                            _holder(found[0]), LEASE, short(str(self._bucket)),
                        )  # fmt: skip
                        return
                    watch = _Watch()
                elif found is not None:
                    watch.require_patience(self._bucket, found[0])
                    time.sleep(PAUSE)
            if self._bucket.put_if(LOCK, self._words(0), None) is not None:  # granted although a lock exists
                raise NotImplementedError
        except NotImplementedError:
            _warn_once(self._bucket)

    def hurry(self) -> None:
        """Use short timeouts for renewing and releasing from now on."""
        self._bucket = self._bucket.hurried()

    def _won(self, tag: str | None) -> bool:
        """Try to take the lock and return whether we have it; if the reply was lost, the object tells."""
        try:
            if self._bucket.put_if(LOCK, self._words(0), tag) is not None:
                return True
        except Unreachable:
            if not self._ours():
                raise
        return self._ours()

    def _words(self, number: int) -> bytes:
        holder = f"process {os.getpid()} on {re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname()[:64])}"
        return json.dumps(
            {"holder": holder, "token": self._token, "beat": number, "time": time.time()}
        ).encode()

    def _ours(self) -> bool:
        return self._tag() is not None

    def _tag(self) -> str | None:
        """The lock's tag; None if it is not ours."""
        found = self._bucket.get(LOCK)
        return found[1] if found is not None and _said(found[0]).get("token") == self._token else None

    def renew(self, number: int) -> None:
        tag = self._tag()
        if tag is None:
            self._lost = True
            return
        try:  # somebody may take it between these two requests
            self._bucket.put_if(LOCK, self._words(number), tag)
        except NotImplementedError:
            self._bucket.put(LOCK, self._words(number))

    def require(self) -> None:
        if self._lost:
            raise UserError(
                f"another process took the lock of {short(str(self._bucket))}, for this one gave no sign of "
                f"life for {LEASE:g} seconds: run the same command again; what was finished is kept"
            )

    def release(self) -> None:
        with suppress(UserError):
            if self._ours():
                self._bucket.delete([LOCK])


@contextmanager
def _beating(beat: Callable[[int], object]) -> Iterator[None]:
    """Call a function with 1, 2, ... every `BEAT` seconds in a thread, ignoring UserErrors."""
    ended = threading.Event()

    def run() -> None:
        number = 0
        while not ended.wait(BEAT):
            number += 1
            with suppress(UserError):
                beat(number)

    thread = threading.Thread(target=run, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _holder(data: bytes) -> str:
    """The process that a lock names, if well formed: anybody may have written anything there."""
    words = _said(data).get("holder")
    if isinstance(words, str) and re.fullmatch(r"process \d{1,10} on [A-Za-z0-9.-]{1,64}", words):
        return words
    return "one that does not say which"


def _said(data: bytes) -> dict:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _warn_once(bucket: Bucket) -> None:
    if str(bucket) not in _warned:
        _warned.add(str(bucket))
        log.warning(
            "the server of %s has no conditional writes: make sure that no other process makes, grows or "
            "repairs this store", short(str(bucket)),
        )  # fmt: skip
