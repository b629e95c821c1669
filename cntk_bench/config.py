"""What a run is asked to do: the YAML's keys, their defaults, and their checks.

Names that other rooms know (data sets in `data`, backends in `backends`) are checked there, so that
adding one touches one place.
"""

import reprlib
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from cntk_bench.columns import readout
from cntk_bench.errors import UserError
from cntk_bench.spec import Readout


def _not_a_truth_value(value: Any) -> Any:
    if isinstance(value, bool):  # else True would be taken for the ridge 1.0
        raise ValueError
    return value


Count = Annotated[StrictInt, Field(ge=1)]
# Not strict: PyYAML reads 1e-6, without a point, as text.
Ridge = Annotated[float, BeforeValidator(_not_a_truth_value), Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    """A mapping of the YAML. Each field's description completes "expected ..." in an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Dataset(_Section):
    """Which images, how many of them, and how they are prepared."""

    name: StrictStr = Field("digits", min_length=1, description="the name of a data set, such as digits")
    path: StrictStr | None = Field(None, min_length=1, description="a file or folder, or null")
    train: Count | None = Field(None, description="an integer of at least 1, or null for all")
    test: Count | None = Field(None, description="an integer of at least 1, or null for all")
    seed: Annotated[StrictInt, Field(ge=0)] = Field(0, description="an integer of at least 0")
    preprocess: Literal["standardize", "none"] = Field("standardize", description="standardize or none")


class Kernel(_Section):
    """The table's columns and rows."""

    columns: tuple[StrictStr, ...] = Field(
        ("CNTK-V", "CNTK-GAP"), min_length=1, description="a list of columns, such as [CNTK-V, CNTK-GAP]"
    )
    depths: tuple[StrictInt, ...] = Field(
        (3, 4, 6, 11, 21), min_length=1, description="a list of integers, such as [3, 4, 6]"
    )

    @model_validator(mode="after")
    def _possible(self):
        for key, values in (("columns", self.columns), ("depths", self.depths)):
            for value in values:
                if values.count(value) > 1:
                    raise UserError(f"kernel.{key} lists {value} twice: list it once")
        _ = self.readouts  # an unknown column or an impossible depth raises
        return self

    @property
    def cells(self) -> tuple[tuple[str, int], ...]:
        """(column, depth) of every cell of the table, column by column."""
        return tuple((column, depth) for column in self.columns for depth in self.depths)

    @property
    def readouts(self) -> tuple[Readout, ...]:
        """The readout of every cell, in the order of `cells`."""
        return tuple(readout(column, depth) for column, depth in self.cells)


class Compute(_Section):
    """How the Gram matrix is computed; no choice here changes what is computed."""

    backend: StrictStr = Field("auto", min_length=1, description="auto, cpu or cuda")
    tile: Literal["auto"] | Count = Field("auto", description="auto, or an integer of at least 1")


class Solve(_Section):
    """How the kernel regression is solved; ridges are relative to the mean diagonal of the Gram matrix."""

    ridge: Ridge | Literal["loo"] | Annotated[tuple[Ridge, ...], Field(min_length=1)] = Field(
        0.0,
        description="a finite number of at least 0, a list of such numbers "
        "(the best by leave-one-out is taken), or loo",
    )
    precision: Literal["auto", "float64", "float32"] = Field("auto", description="auto, float64 or float32")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda")


class Config(_Section):
    """One run.

    Parameters
    ----------
    name : str
        Names the run and its directory; the YAML file's name where the file gives none.
    dataset, kernel, compute, solve : Dataset, Kernel, Compute, Solve
        Sections; each may be left out, as may any of their keys.
    """

    name: Annotated[StrictStr, Field(pattern=r"^\w[\w .+-]*$", max_length=100)] = Field(
        description="a name of letters, digits, spaces and any of . + - _"
    )
    dataset: Dataset = Field(Dataset(), description="a mapping")
    kernel: Kernel = Field(Kernel(), description="a mapping")
    compute: Compute = Field(Compute(), description="a mapping")
    solve: Solve = Field(Solve(), description="a mapping")


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file, apply overrides, check everything.

    Parameters
    ----------
    path : path-like
        A YAML file.
    overrides : iterable of str, optional
        Assignments such as "dataset.train=200", their values read as YAML; the last one of a
        key counts.

    Returns
    -------
    Config

    Raises
    ------
    UserError
        If the file cannot be read, or a key or value is not possible.
    """
    try:
        text = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise UserError(f"cannot read the config {path}: {getattr(error, 'strerror', error)}") from None
    raw = _parse(text, str(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path} is not a config: expected keys such as 'dataset:', found {_show(raw)}")
    raw = {"name": Path(path).stem} | raw
    origins = {}  # dotted key -> the override that set it
    for override in overrides:
        origin = f"--set {' '.join(override[:80].split())}"
        key, equals, value = override.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"{origin}: expected key=value, such as dataset.train=200")
        raw = _assign(raw, key.split("."), _parse(value, origin))
        origins[key] = origin
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key, problem = _explain(first["type"], first["loc"], raw)
        raise UserError(f"{_origin(key, origins) or path}: {problem}") from None
    except UserError as error:
        raise UserError(f"{_origin('kernel', origins) or path}: {error}") from None


def dump(config: Config) -> str:
    """The config as YAML with every key written out; `load` reads it back to an equal Config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error; PyYAML would take the last silently."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is given twice: keep one", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse(text: bytes | str, origin: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if isinstance(text, bytes) else ""
        raise UserError(f"{origin}{line}: not valid YAML: {error.problem}") from None
    except Exception as error:  # PyYAML lets out many types: "2020-13-45", "!!int ''", deep nesting
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{origin}: not valid YAML: {reason}") from None


def _assign(mapping: Mapping, parts: list[str], value: Any) -> dict:
    """A copy of nested mappings with one value set; what is not a mapping on the way is replaced."""
    head, *rest = parts
    if rest:
        inner = mapping.get(head)
        value = _assign(inner if isinstance(inner, Mapping) else {}, rest, value)
    return {**mapping, head: value}


def _fields(model: type[BaseModel] = Config, prefix: str = "") -> dict[str, str]:
    """Every dotted key of the YAML and what it expects."""
    found = {}
    for name, field in model.model_fields.items():
        found[prefix + name] = field.description
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _fields(field.annotation, f"{prefix}{name}.")
    return found


def _explain(kind: str, location: tuple, raw: Mapping) -> tuple[str, str]:
    """The dotted key of pydantic's error, and the error in our words."""
    fields = _fields()
    if kind in ("extra_forbidden", "invalid_key"):
        key = ".".join(map(str, location))
        return key, f"unknown key {key[:80]}: {_remedy(key, list(fields))}"
    # pydantic appends list indices and branches of a union to the location
    key = ".".join(map(str, location[: 2 if ".".join(map(str, location[:2])) in fields else 1]))
    value = raw
    for part in key.split("."):
        value = value[part]
    return key, f"{key} is {_show(value)}: expected {fields[key]}"


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


def _origin(key: str, origins: Mapping[str, str]) -> str | None:
    """The override that set a key, or a part of it."""
    for name, origin in reversed(origins.items()):
        if f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}."):
            return origin
    return None


def _show(value: Any) -> str:
    """A value in a few characters: YAML aliases can make one that prints without end."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = reprlib.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
