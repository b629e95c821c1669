"""Explain what is wrong with a config: the key, the value, and the remedy."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import SequenceMatcher

from pydantic import BaseModel

from cntk_bench import backends, data, executors, regression
from cntk_bench.columns.section import REASON, WHOLE
from cntk_bench.config.source import EXTENDS, show
from cntk_bench.errors import Mistakes, UserError
from cntk_bench.text import exact, one_line, short

MOST = 20  # mistakes that are reported at once
# Keys whose values are names that plugins may add -> functions that refuse an unknown name.
NAMED: dict[tuple[str, str], Callable[[str], None]] = {
    ("dataset", "name"): lambda name: data.require_known(data.canonical(name)),
    ("compute", "backend"): backends.require_known,
    ("compute", "executor"): executors.require_known,
    ("solve", "solver"): regression.require_known,
}


def fields(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Return every dotted key of the YAML and what it expects."""
    found = {}
    for name, field in model.model_fields.items():
        found[prefix + name] = field.description or ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= fields(field.annotation, f"{prefix}{name}.")
    return found


def explained(errors: Iterable[Mapping], raw: Mapping, model: type[BaseModel]) -> dict[str, str]:
    """Turn pydantic's errors into our words: every wrong dotted key, and what is wrong with it."""
    found: dict[str, str] = {}
    for error in errors:
        key, problem = _explained(error, raw, model)
        # Each branch of a union has an error for the same key, and one may say more than the others.
        if key not in found or error["type"] == "less_than_equal":
            found[key] = problem
    return found


def _explained(error: Mapping, raw: Mapping, model: type[BaseModel]) -> tuple[str, str]:
    known, location = fields(model), error["loc"]
    if error["type"] in ("extra_forbidden", "invalid_key"):
        key = ".".join(map(str, location))
        if key in known:  # a known key, but written with dots
            section, _, name = key.rpartition(".")
            return key, f"unknown key {key}: write {name} indented, on a line of its own below {section}:"
        return key, f"unknown key {short(key) or repr(key)}: {_remedy(key[:100], [*known, EXTENDS])}"
    # pydantic appends list indices and branches of a union to the location
    prefixes = (".".join(map(str, location[:n])) for n in range(len(location), 1, -1))
    key = next((prefix for prefix in prefixes if prefix in known), str(location[0]))
    if error["type"] == WHOLE:
        return key, error["msg"]
    value = raw
    for part in key.split("."):
        value = value[part]
    if error["type"] == REASON:
        problem = error["msg"]
    elif error["type"] == "less_than_equal":
        most = error["ctx"]["le"]
        problem = f"use at most {most:,}" if isinstance(most, int) else f"use at most {exact(most)}"
    else:
        inner = next((one for one in known if one.startswith(f"{key}.")), None)
        problem = (
            f"expected keys of its own, such as {inner}: write some, or leave it out"
            if inner
            else f"expected {known[key]}"
            if known[key]
            else one_line(error["msg"], 100)  # a section of another package need not describe its keys
        )
    if key == "name" and isinstance(value, int | float):
        problem = f"{problem}; in quotes, a number or a truth value is a name"
    return key, f"{key} is {show(value)}: {problem}"


def unknown_names(raw: Mapping) -> dict[str, str]:
    """Return the dotted keys whose values are unknown names, and what is wrong with each."""
    wrong = {}
    for (section, key), require in NAMED.items():
        keys = raw.get(section)
        name = keys.get(key) if isinstance(keys, Mapping) else None
        if isinstance(name, str) and name:
            try:
                require(name)
            except UserError as error:
                wrong[f"{section}.{key}"] = str(error)
    return wrong


def together(told: Sequence[str], where: str) -> UserError:
    """Combine mistakes, each with its place, into one error."""
    if len(told) == 1:
        return UserError(told[0])
    lines = [f"  {one_line(line)}" for line in told[:MOST]]
    more = [f"  and {len(told) - MOST} more"] if len(told) > MOST else []
    return Mistakes("\n".join([f"{len(told)} mistakes in {where}:", *lines, *more]))


def _remedy(key: str, known: list[str]) -> str:
    section, _, name = key.rpartition(".")

    def likeness(candidate: str) -> float:
        place, _, leaf = candidate.rpartition(".")
        return SequenceMatcher(None, name.lower(), leaf).ratio() + 0.1 * (place == section)

    nearest = max(known, key=likeness)
    if likeness(nearest) >= 0.6:
        return f"did you mean {nearest}?"
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    return f"the keys here are {', '.join(siblings)}"
