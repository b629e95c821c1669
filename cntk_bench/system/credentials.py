"""Address of an S3 server and our credentials, from AWS's variables or else AWS's files; never stored.

    AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; AWS_PROFILE
    ~/.aws/credentials and ~/.aws/config, or AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE

obstore itself follows the variables of containers, web identities and anonymous access. An instance's role is
requested only if AWS_METADATA_ENDPOINT is set, since elsewhere that request takes long to time out.
"""

import configparser
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cntk_bench.errors import UserError
from cntk_bench.text import short

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
RENEWED = 900.0  # seconds after which, or some minutes before, obstore reads the files' credentials again
OTHERS = (  # variables of other kinds of credentials, which obstore follows
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_METADATA_ENDPOINT",
    "AWS_SKIP_SIGNATURE",
)


def found() -> tuple[tuple[str, str], ...]:
    """Settings for obstore, as pairs of a name and its value.

    Raises
    ------
    UserError
        If an endpoint is no URL, or a file cannot be read.
    """
    told, profile = {"region": _first(REGIONS)}, _profile()
    told["region"] = told["region"] or profile.get("region") or "us-east-1"
    endpoint = _endpoint(profile)
    if endpoint:
        told["endpoint"] = endpoint
    return tuple(sorted((name, value) for name, value in told.items() if value))


def provider() -> Callable[[], dict[str, Any]] | None:
    """Function that obstore calls repeatedly for credentials; None if obstore finds them itself.

    Raises
    ------
    UserError
        If there are no credentials.
    """
    if all(map(os.environ.get, KEYS[:2])):
        return None
    if _keys(_profile()):
        return _kept
    if _first(OTHERS):
        return None
    raise UserError(
        "nothing says who you are for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "AWS_PROFILE for a profile in ~/.aws/credentials"
    )


def _kept() -> dict[str, Any]:
    """Credentials from AWS's files, which other programs may renew while we compute."""
    return {**_keys(_profile()), "expires_at": datetime.now(UTC) + timedelta(seconds=RENEWED)}


def _keys(profile: dict[str, str]) -> dict[str, str]:
    """A profile's credentials under obstore's names; empty if it has none."""
    if not all(profile.get(name.lower()) for name in KEYS[:2]):
        return {}
    names = zip(KEYS, ("access_key_id", "secret_access_key", "token"), strict=True)
    return {ours: profile[name.lower()] for name, ours in names if profile.get(name.lower())}


def host() -> str:
    """The server's name, for messages."""
    try:
        endpoint = _endpoint(_profile())
    except UserError:
        endpoint = None
    return short(urlsplit(endpoint).netloc) if endpoint else "AWS"


def _endpoint(profile: dict[str, str]) -> str | None:
    endpoint = _first(ENDPOINTS) or profile.get("endpoint_url")
    if endpoint and not re.fullmatch(r"https?://[\w.:\[\]-]+(/[\w./-]*)?", endpoint, re.ASCII):
        raise UserError(
            "AWS_ENDPOINT_URL is not the URL of a server: give one such as https://s3.example.org, without a "
            "user or a password"
        )
    return endpoint


def _first(names: tuple[str, ...]) -> str | None:
    return next(filter(None, map(os.environ.get, names)), None)


def _profile() -> dict[str, str]:
    """The profile's entries in AWS's files; those in the credentials file take precedence."""
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    entries: dict[str, str] = {}
    for variable, default, section in (
        ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        file = Path(os.environ.get(variable) or Path(os.path.expanduser("~"), ".aws", default))
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeError, OSError):
            raise UserError(f"{short(str(file))} cannot be read: mend it, or set {variable}") from None
        if parser.has_section(section):
            entries |= dict(parser.items(section))
    return entries
