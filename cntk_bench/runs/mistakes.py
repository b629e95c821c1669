"""What is wrong with a config, in words: the key, the value, and the remedy."""

from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any

from pydantic import BaseModel

from cntk_bench.text import short


def fields(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Every dotted key of the YAML and what it expects."""
    found = {}
    for name, field in model.model_fields.items():
        found[prefix + name] = field.description or ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= fields(field.annotation, f"{prefix}{name}.")
    return found


def explain(error: Mapping, raw: Mapping, model: type[BaseModel]) -> tuple[str, str]:
    """The dotted key of pydantic's error, and the error in our words."""
    known, location = fields(model), error["loc"]
    if error["type"] in ("extra_forbidden", "invalid_key"):
        key = ".".join(map(str, location))
        return key, f"unknown key {short(key)}: {_remedy(key[:100], list(known))}"
    # pydantic appends list indices and branches of a union to the location
    prefixes = (".".join(map(str, location[:n])) for n in range(len(location), 1, -1))
    key = next((prefix for prefix in prefixes if prefix in known), str(location[0]))
    value = raw
    for part in key.split("."):
        value = value[part]
    if error["type"] == "told":
        problem = error["msg"]
    elif error["type"] == "less_than_equal":
        problem = f"use at most {error['ctx']['le']:,}"
    else:
        problem = f"expected {known[key]}"
    if key == "name" and isinstance(value, int | float):
        problem = f"{problem}; in quotes, a number or a truth value is a name"
    return key, f"{key} is {show(value)}: {problem}"


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


def origin(key: str, origins: Mapping[str, str]) -> str | None:
    """The override that set a key, or a part of it."""
    for name, origin in reversed(list(origins.items())):
        if f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}."):
            return origin
    return None


def show(value: Any) -> str:
    """A value in a few characters, as YAML has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return short(repr(value) if isinstance(value, str) else value)
