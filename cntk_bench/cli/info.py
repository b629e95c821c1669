"""The command `info`: describe this installation and this machine."""

from collections.abc import Callable
from functools import partial

import click

from cntk_bench import __version__
from cntk_bench.cli import document, options, streams, units
from cntk_bench.text import short


@click.command()
@options.common
def info() -> None:
    """Show the version, this machine, the backends that work here, known data sets and configs that ship."""
    streams.line("cntk-bench", __version__)
    for what in ("machine", "versions"):
        found = _tried(what, partial(_provenance, what))
        document.add(**{what: found})
        for name, value in found.items():
            if name == "memory" and value:
                value = units.size(value)
            streams.line(name, ", ".join(map(str, value)) or "none" if isinstance(value, list) else value)
    for name, function in (("backends", _backends), ("data sets", _data_sets), ("configs", _configs)):
        for key, value in _tried(name, function).items():
            streams.line(key, value)


COMMANDS = (info,)


def _tried(name: str, function: Callable[[], dict]) -> dict:
    """Return what a function finds or, if it fails, why: `info` must work where other things do not."""
    try:
        return function()
    except Exception as error:
        return {name: f"unknown ({_reason(error)})"}


def _reason(error: Exception) -> str:
    return short(f"{type(error).__name__}: {error}", 150)


def _provenance(function: str) -> dict:
    from cntk_bench.records import provenance

    return getattr(provenance, function)()


def _backends() -> dict[str, str]:
    """Return the backends that work, and why broken ones do not."""
    from cntk_bench import backends

    working, broken = [], {}
    for name in backends.names():  # in order of preference
        try:
            if backends.module(name).available():
                working.append(name)
        except Exception as error:
            broken[f"backend {name}"] = f"is broken ({_reason(error)})"
    document.add(backends=working, backends_broken=broken)
    auto = f" (auto: {working[0]})" if working else ""
    return {"backends": f"{', '.join(working) or 'none'}{auto}"} | broken


def _data_sets() -> dict[str, str]:
    from cntk_bench.data.sources import names

    document.add(data_sets=names())
    return {"data sets": ", ".join(names())}


def _configs() -> dict[str, str]:
    from cntk_bench.system.resources import configs

    document.add(configs=configs())
    return {"configs": ", ".join(configs())}
