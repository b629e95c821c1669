"""Who works on a store among objects: signs of life, for an object store has no locks that end with a process.

    writers/WRITER   a process that may write tiles
    lock             the one that may change what the store holds: that makes, grows or repairs it

Either is written anew every `BEAT` seconds by whoever it stands for, and removed at the end. A lock is made by a
conditional write, which the server grants to one alone. If its holder is killed, the lock stays as it is: who
wants it looks on for `LEASE` seconds, by a clock of its own, whether it changes, and then takes it, by a
conditional write again, and says so. Writers' signs are judged by their age, for they bar only who wants the
lock: a clock that is wrong either bars him for longer, or lets the store change under a writer, which then ends
with a line (`segments`).
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
from datetime import UTC, datetime, timedelta

from cntk_bench.errors import UserError
from cntk_bench.system.bucket import Bucket, Unreachable
from cntk_bench.system.lock import Held
from cntk_bench.text import short

log = logging.getLogger(__name__)

BEAT = 5.0  # seconds between two signs of life
LEASE = 30.0  # seconds without one after which somebody is held to be dead
PAUSE = 0.5  # seconds between two looks
LOCK, WRITERS = "lock", "writers"
_warned: set[str] = set()


@contextmanager
def present(bucket: Bucket, name: str) -> Iterator[None]:
    """Show others that a writer of this name is alive.

    Raises
    ------
    UserError
        If nothing can be written there.
    """
    sign = f"{WRITERS}/{name}"
    bucket.put(sign, b"0")
    try:
        with _beating(lambda n: bucket.put(sign, str(n).encode())):
            yield
    finally:
        with suppress(UserError):
            bucket.delete([sign])


def alive(bucket: Bucket) -> set[str]:
    """Names of the writers that have shown a sign of life lately."""
    since = datetime.now(UTC) - timedelta(seconds=LEASE)
    return {one.name.partition("/")[2] for one in bucket.list(WRITERS) if one.changed >= since}


def sweep(bucket: Bucket) -> None:
    """Remove signs of writers that were killed."""
    since = datetime.now(UTC) - timedelta(days=1)
    bucket.delete([one.name for one in bucket.list(WRITERS) if one.changed < since])


def require_free(bucket: Bucket, patience: float) -> None:
    """Wait until nobody changes the store.

    Raises
    ------
    Held
        If somebody who is alive still does after `patience` seconds. Who shows no sign of life bars nobody: what
        he had begun to change counts for nothing until it was ended.
    """
    end = time.monotonic() + patience
    first, since = bucket.get(LOCK), time.monotonic()
    while first is not None and time.monotonic() - since < LEASE:
        time.sleep(PAUSE)
        now = bucket.get(LOCK)
        if now is not None and now[1] != first[1]:
            if time.monotonic() >= end:
                raise _held(bucket, now[0])
            since = time.monotonic()
        first = now


@contextmanager
def held(bucket: Bucket) -> Iterator[Callable[[], None]]:
    """Hold the lock of a store; gives a function that raises UserError if it was lost.

    Raises
    ------
    Held
        If another process has it, or writes.
    """
    claim = _Claim(bucket)
    claim.take()
    try:
        with _beating(claim.renew):
            others = alive(bucket)
            if others:
                raise Held(
                    f"{len(others)} other processes ({short(', '.join(sorted(others)))}) compute into "
                    f"{short(str(bucket))}: wait for them to end; after a kill, for {LEASE:g} seconds"
                )
            yield claim.require
    finally:
        claim.release()


class _Claim:
    """A lock object of ours."""

    def __init__(self, bucket: Bucket):
        self._bucket, self._token, self._lost = bucket, uuid.uuid4().hex, False

    def _words(self, number: int) -> bytes:
        holder = f"process {os.getpid()} on {re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname()[:64])}"
        return json.dumps({"holder": holder, "token": self._token, "beat": number, "time": time.time()}).encode()

    def take(self) -> None:
        try:
            if self._won(None):
                return
            found = self._bucket.get(LOCK)
            if found is None:
                if self._won(None):
                    return
                found = self._bucket.get(LOCK)
            if found is not None:
                now = _watched(self._bucket, found[1], LEASE)
                if now is not None and now[1] != found[1]:
                    raise _held(self._bucket, now[0])
                if not self._won(now and now[1]):
                    raise _held(self._bucket, found[0])
                if now is not None:
                    log.warning(
                        "%s, which held the lock of %s, has given no sign of life for %g seconds: taken from it",
                        _holder(now[0]), short(str(self._bucket)), LEASE,
                    )  # fmt: skip
        except NotImplementedError:
            _warn_once(self._bucket)

    def _won(self, tag: str | None) -> bool:
        """Whether we have the lock after trying; asked of the object itself where the answer was lost."""
        try:
            if self._bucket.put_if(LOCK, self._words(0), tag) is not None:
                return True
        except Unreachable:
            if not self._ours():
                raise
        return self._ours()

    def _ours(self) -> bool:
        found = self._bucket.get(LOCK)
        return found is not None and _said(found[0]).get("token") == self._token

    def renew(self, number: int) -> None:
        if self._ours():
            self._bucket.put(LOCK, self._words(number))
        else:
            self._lost = True

    def require(self) -> None:
        if self._lost:
            raise UserError(
                f"another process took the lock of {short(str(self._bucket))}, for this one gave no sign of life "
                f"for {LEASE:g} seconds: run the same command again; what was finished is kept"
            )

    def release(self) -> None:
        with suppress(UserError):
            if self._ours():
                self._bucket.delete([LOCK])


@contextmanager
def _beating(beat: Callable[[int], object]) -> Iterator[None]:
    """Call a function with 1, 2, ... every `BEAT` seconds; what keeps it from being done once is passed over."""
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


def _watched(bucket: Bucket, tag: str, seconds: float) -> tuple[bytes, str] | None:
    """The lock, as soon as it is not the one of this tag any more, or after these seconds; None if it is gone."""
    end = time.monotonic() + seconds
    while True:
        found = bucket.get(LOCK)
        if found is None or found[1] != tag or time.monotonic() >= end:
            return found
        time.sleep(min(PAUSE, max(0.0, end - time.monotonic())))


def _held(bucket: Bucket, data: bytes) -> Held:
    return Held(
        f"another run ({_holder(data)}) is changing {short(str(bucket))}: wait for it to end; if it was killed, "
        f"its lock is free {LEASE:g} seconds later"
    )


def _holder(data: bytes) -> str:
    """The process that a lock names; anybody may have written anything there."""
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
            "the server of %s has no conditional writes: make sure that no other process makes, grows or repairs "
            "this store", short(str(bucket)),
        )  # fmt: skip
