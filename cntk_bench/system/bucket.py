"""Objects under a URL s3://BUCKET/PREFIX on any S3-compatible server, with obstore (extra `cluster`).

The server's address and our credentials come from the environment or AWS's own files (`credentials`), never
from our settings. Messages have only the status and code of a server's answer, since the rest may contain
parts of what was signed.

Requests that fail by the server's fault, or get no answer, are retried with growing pauses, at most `RETRIES`
times and for `LONGEST` seconds. So a request may arrive twice, and late: writers use each name only once, or
must tolerate that the same bytes are written again.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from types import ModuleType
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.system import credentials
from cntk_bench.text import one_line, short

RETRIES = 12  # of a request, at most
TIMEOUT = 60.0  # seconds for an answer to one try
LONGEST = 300.0  # seconds for all tries
HURRIED = 5.0, 4, 10.0  # timeout, retries and seconds for all tries of requests that may as well fail
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 15.0  # seconds between two tries
KEPT = "what is finished is kept, and the same command goes on from there"
URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([\w.!*'()=+-]+(?:/[\w.!*'()=+-]+)*)/?", re.ASCII)
REGIONAL = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException")
CLOCKS = ("RequestTimeTooSkewed", "RequestExpired")  # codes for a request with a wrong time
INSTALL = "pip install 'cntk-bench[cluster]'"


class Unreachable(UserError):
    """The server cannot be used at the moment; what is stored there is not necessarily damaged."""


@dataclass(frozen=True)
class Listed:
    """An object in a listing.

    name : the object's name below the prefix.
    changed : time when it was last written, by the server's clock.
    """

    name: str
    changed: datetime


class Bucket:
    """The objects under a URL; picklable, without any credentials.

    Raises
    ------
    UserError
        If the URL is not of the form s3://BUCKET/PREFIX, or has a user or parameters.
    """

    def __init__(self, url: str, hurried: bool = False):
        self._hurried = hurried
        self.name, self.prefix = _parsed(url)
        self.url = f"s3://{self.name}/{self.prefix}"

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"Bucket({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bucket) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple:
        return Bucket, (self.url, self._hurried)

    def hurried(self) -> "Bucket":
        """The same bucket with short timeouts, for requests not worth waiting for, such as final ones."""
        return Bucket(self.url, True)

    def client(self) -> Any:
        """obstore's client for these objects.

        Raises
        ------
        UserError
            If obstore is not installed, or there are no credentials.
        """
        patience = HURRIED if self._hurried else (TIMEOUT, RETRIES, LONGEST)
        return _client(self.name, self.prefix, credentials.found(), credentials.provider(), *patience)

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Read an object's bytes and its tag, which changes with the bytes; None if there is no object."""
        obstore = _obstore()
        with self.reaching():
            try:
                found = obstore.get(self.client(), name)
                return bytes(found.bytes()), str(found.meta["e_tag"])
            except FileNotFoundError as error:
                _require_bucket(error)
                return None

    def tag(self, name: str) -> str | None:
        """An object's tag; None if there is no object."""
        obstore = _obstore()
        with self.reaching():
            try:
                return str(obstore.head(self.client(), name)["e_tag"])
            except FileNotFoundError:
                return None

    def put(self, name: str, data: bytes) -> str:
        """Write an object atomically, and return its tag."""
        obstore = _obstore()
        with self.reaching():
            return str(obstore.put(self.client(), name, data)["e_tag"])

    def put_if(self, name: str, data: bytes, tag: str | None) -> str | None:
        """Write an object if its tag is still `tag`, or for None if it does not exist; return the new tag.

        Returns None if the server says that the condition failed; an earlier try without an answer may still
        have written the object.

        Raises
        ------
        NotImplementedError
            If the server does not support conditional writes.
        """
        obstore = _obstore()
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        with self.reaching():
            try:
                mode: Any = "create" if tag is None else {"e_tag": tag}
                return str(obstore.put(self.client(), name, data, mode=mode)["e_tag"])
            except (AlreadyExistsError, PreconditionError):
                return None
            except NotSupportedError:
                raise NotImplementedError from None
            except FileNotFoundError as error:
                _require_bucket(error)
                return None
            except Exception as error:
                if _status(error)[0] == 501:
                    raise NotImplementedError from None
                raise

    def list(self, under: str = "") -> Iterator[Listed]:
        """Yield the objects in a folder, in no particular order."""
        obstore = _obstore()
        with self.reaching():
            for some in obstore.list(self.client(), prefix=under or None):
                yield from (Listed(one["path"], one["last_modified"]) for one in some)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that do not exist are ignored."""
        obstore = _obstore()
        with self.reaching():
            obstore.delete(self.client(), list(names))

    def require(self) -> None:
        """Raise UserError if the bucket does not exist or we may not list it."""
        for _ in self.list():
            break

    def exists(self) -> bool:
        """Whether there is a Zarr group."""
        return self.tag("zarr.json") is not None

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turn errors of requests into a UserError of one line, with a remedy."""
        _obstore()
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            raise self._explained(error) from None

    def _explained(self, error: Exception) -> UserError:
        status, code = _status(error)
        if status in (400, 401, 403) and code is None:
            code = self._why()
        host = credentials.host()
        where = f"{short(self.url)} at {host}"
        said = " ".join(map(str, filter(None, (status, code))))
        if code == "NoSuchBucket" or status == 404:
            return UserError(
                f"there is no bucket {short(self.name)} at {host}: make it, or mend compute.store "
                "or AWS_ENDPOINT_URL"
            )
        if status in (301, 307) or code in REGIONAL:
            return UserError(f"{where} is in another region ({said}): set AWS_REGION")
        if code in CLOCKS:
            return UserError(f"{where} refuses this machine's clock ({said}): set it; {KEPT}")
        if status in (400, 401, 403):
            return UserError(
                f"access to {where} is refused ({said}): mend AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
                "AWS_SESSION_TOKEN, AWS_PROFILE or AWS_REGION, or what they are allowed there"
            )
        if status is None:
            late = re.search(r"timed out|kind: Timeout", str(error))
            said = "no answer in time" if late else "no connection"
        tries = re.search(r"after (\d+) retries", str(error))
        return Unreachable(
            f"{where} cannot be used now, after {tries[1] if tries else 0} retries ({said}): {KEPT}"
        )

    def _why(self) -> str | None:
        """Find the code of a refusal by a GET request, since the answer to HEAD has only a status."""
        try:
            _obstore().get(self.hurried().client(), "zarr.json")
        except Exception as error:
            return _status(error)[1]
        return None


def reaching(path: object) -> AbstractContextManager[None]:
    """`Bucket.reaching` for a bucket; a context that does nothing for anything else."""
    return path.reaching() if isinstance(path, Bucket) else nullcontext()


def _parsed(url: str) -> tuple[str, str]:
    """Split a URL into bucket and prefix."""
    if "@" in url or "?" in url or "#" in url:
        raise UserError(
            "compute.store: no user, password or other parameters may be in the URL: give s3://BUCKET/PREFIX,"
            " and credentials by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in ~/.aws/credentials"
        )
    found = URL.fullmatch(url)
    if not found or {"", ".", ".."} & set(found[2].split("/")):
        raise UserError(
            f"compute.store is {short(url)}: give s3://BUCKET/PREFIX, such as s3://kernels/cifar10, or null "
            "for the run directory"
        )
    return found[1], found[2]


def _status(error: Exception) -> tuple[int | None, str | None]:
    """The status and the code in a server's answer, each None if missing."""
    text = str(error)
    status = re.search(r"status code: (\d{3})\b", text)
    code = re.search(r"<Code>(\w{1,40})</Code>", text)
    return (int(status[1]) if status else None), (code[1] if code else None)


def _require_bucket(error: Exception) -> None:
    """Raise the error again if the whole bucket does not exist, not only an object."""
    if _status(error)[1] == "NoSuchBucket":
        raise error


def _obstore() -> ModuleType:
    try:
        import obstore.exceptions
    except ImportError as error:
        raise UserError(f"object stores need obstore ({one_line(error, 80)}): {INSTALL}") from None
    return obstore


@lru_cache(maxsize=16)
def _client(
    name: str,
    prefix: str,
    account: tuple[tuple[str, str], ...],
    provider: Callable | None,
    timeout: float,
    retries: int,
    longest: float,
) -> Any:
    _obstore()
    from obstore.store import S3Store

    known = dict(account)
    plain = known.get("endpoint", "").startswith("http://")
    options: Any = {"timeout": f"{timeout * 1000:.0f}ms", "connect_timeout": "10s"}
    pauses = {"init_backoff": FIRST_PAUSE, "max_backoff": LONGEST_PAUSE}
    retry: Any = {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=longest),
        "backoff": {name: timedelta(seconds=pause) for name, pause in pauses.items()},
    }
    config: Any = {**known, **({"credential_provider": provider} if provider else {})}
    try:
        return S3Store(
            name,
            prefix=prefix,
            client_options=options | ({"allow_http": True} if plain else {}),
            retry_config=retry,
            **config,
        )
    except Exception as error:
        raise UserError(
            f"the settings for s3://{short(name)} are not possible ({type(error).__name__}): mend the "
            "variables that begin with AWS_"
        ) from None
