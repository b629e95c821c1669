"""The keys of a sweep and their values, checked before anything is computed.

Each combination of the values is a config of its own. Those that one Gram serves are solves of one run; a key
that decides the images themselves makes a run for each of its values, in a folder named after them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, get_origin

from cntk_bench import columns
from cntk_bench.comparisons import circumstances
from cntk_bench.config import config, mistakes, yaml12
from cntk_bench.config.config import Config
from cntk_bench.errors import UserError
from cntk_bench.report.rows import MOST as MOST_CELLS
from cntk_bench.runs import images
from cntk_bench.text import short

MOST = 1000  # combinations
MOST_NAME = 100  # characters of a folder's name
TRAINING = ("dataset.train", "dataset.draws")  # may decide which images the preparation is fitted on
GROWING = (*TRAINING, "dataset.test")  # one Gram can serve several values of these


@dataclass(frozen=True)
class Combination:
    """One config of a sweep: key -> value, in the order of the axes, and the settings that they make."""

    values: Mapping[str, Any]
    settings: Config

    @property
    def apart(self) -> dict[str, Any]:
        """The values that make a run of its own."""
        return {key: value for key, value in self.values.items() if is_apart(key, self.settings)}


def is_apart(key: str, settings: Config) -> bool:
    """Whether each value of a key makes a run of its own: its images, or their preparation, are others."""
    if key in TRAINING:
        return settings.preprocess.statistics == "subset" and images.recipe(settings).fits
    return key.partition(".")[0] in ("dataset", "preprocess") and key not in GROWING


def combinations(file: Path, overrides: Sequence[str], over: Iterable[str]) -> list[Combination]:
    """Return all combinations of the values asked for, the last key varying fastest.

    Parameters
    ----------
    file : Path
        The config.
    overrides : sequence of str
        As for `config.load`.
    over : iterable of str
        Each is KEY=VALUES, with a YAML list such as "solve.ridge=[0, 1e-4]"; or KEY alone, for each value of
        the config's list. For a key that is always a list, such as kernel.depths or network.rates, [3, 4]
        stands for [[3], [4]].

    Raises
    ------
    UserError
        If a key or value is not possible, a list is empty, or there are too many combinations.
    """
    base = config.load(file, overrides)
    axes: dict[str, list[Any]] = {}
    for text in over:
        key, values = _axis(file, overrides, base, text)
        if key in axes:
            raise UserError(f"--over {short(text)}: {key} is given twice: give all its values at once")
        axes[key] = values
    count = prod(map(len, axes.values()))
    if count > MOST:
        each = " x ".join(f"{len(values)} of {key}" for key, values in axes.items())
        raise UserError(
            f"--over: {count:,} combinations ({short(each, 120)}) are too many: use at most {MOST:,}"
        )
    kernels = {key: values for key, values in axes.items() if key.startswith("kernel.")}
    cells = sum(len(_loaded(file, overrides, one).kernel.cells) for one in _products(kernels))
    cells *= count // prod(map(len, kernels.values()))
    if cells > MOST_CELLS:
        raise UserError(
            f"--over: {count:,} combinations make {cells:,} cells: use fewer values, columns or depths, for "
            f"at most {MOST_CELLS:,}"
        )
    found = [Combination(one, _loaded(file, overrides, one)) for one in _products(axes)]
    _require_effect(axes, found)
    return found


def _require_effect(keys: Iterable[str], some: Sequence[Combination]) -> None:
    """Refuse a key that decides none of the columns, or no step of the preparation.

    All its combinations would be the same solve.
    """
    recipes = [images.recipe(one.settings) for one in some]
    steps = dict.fromkeys(", ".join(recipe.steps) or "none" for recipe in recipes)
    names = list(dict.fromkeys(name for one in some for name in one.settings.kernel.columns))
    deep = any(columns.has_depth(columns.find(name)) for name in names)
    for key in keys:
        section, _, name = key.partition(".")
        of_columns = section in ("solve", *columns.section_names())
        if of_columns and not any(columns.decides(key, name) for name in names):
            raise UserError(
                f"--over {key}: the columns here ({short(', '.join(names))}) do not depend on it: add one "
                "that does to kernel.columns, or leave this out"
            )
        other, values = circumstances.ONLY_WITH.get(key, ("", ()))
        foreign = any(columns.is_foreign(name) and columns.decides(key, name) for name in names)
        used = (
            foreign
            or not other
            or any(circumstances.is_used(key, {other: _value(one.settings, other)}) for one in some)
        )
        if not used:
            raise UserError(
                f"--over {key}: it has no effect but where {other} is {' or '.join(values)}: set that, or "
                "leave this out"
            )
        if key == "kernel.depths" and not deep:
            raise UserError(
                f"--over {key}: the columns here ({short(', '.join(names))}) have no depths: add one that "
                "has some to kernel.columns, or leave this out"
            )
        if section == "preprocess" and not any(name in recipe.used for recipe in recipes):
            raise UserError(
                f"--over {key}: the steps here ({short('; '.join(steps))}) do not depend on it: add one that "
                "does to dataset.preprocess, or leave this out"
            )


def _value(settings: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(settings.section(section), name)


def _products(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, chosen, strict=True)) for chosen in product(*axes.values())]


def _axis(file: Path, overrides: Sequence[str], base: Config, text: str) -> tuple[str, list[Any]]:
    """Parse --over into a key and its values, each of which is possible by itself."""
    where = f"--over {short(text)}"
    key, equals, listed = text.partition("=")
    section, _, name = key.partition(".")
    idle = key in circumstances.NO_SETTINGS and section != "dataset"  # other paths may be other images
    if section in ("compute", "converge") or key == "name" or idle:
        raise UserError(f"{where}: {short(key)} changes nothing that a sweep compares: use --set for it")
    if key in mistakes.fields(Config) and not name:
        known = next(one for one in mistakes.fields(Config) if one.startswith(f"{key}."))
        raise UserError(f"{where}: {short(key)} is a section: name one of its keys, such as {known}")
    if any(override.partition("=")[0] == key for override in overrides):
        raise UserError(f"{where}: {short(key)} is given by --set, too: leave one of them out")
    if equals:
        values = yaml12.read(listed, where)
        if not isinstance(values, list):
            raise UserError(f"{where}: give a list of values, such as solve.ridge=[0, 1e-4]")
    else:
        values = _of_config(file, overrides, base, key, where)
    if not values:
        raise UserError(f"{where}: the list is empty: give at least one value, such as solve.ridge=[0, 1e-4]")
    if len(values) > MOST:
        raise UserError(f"{where}: {len(values):,} values are too many: use at most {MOST:,}")
    if _is_list(base, section, name):
        values = [value if isinstance(value, list) else [value] for value in values]
    else:
        values = [_possible(file, overrides, key, value) for value in values]
    seen: list[Config] = []
    for value in values:
        settings = _loaded(file, overrides, {key: value})
        if settings in seen:  # 0 and 0.0 are one ridge
            raise UserError(f"{where}: {mistakes.show(value)} is listed twice: list it once")
        seen.append(settings)
    return key, values


def _possible(file: Path, overrides: Sequence[str], key: str, value: Any) -> Any:
    """Return the value, or a list of it alone if the key takes only that (network.rates)."""
    for one in (value, [value]):
        try:
            _loaded(file, overrides, {key: one})
            return one
        except UserError:
            continue
    return value  # it is reported with what is wrong with it


def _of_config(file: Path, overrides: Sequence[str], base: Config, key: str, where: str) -> list[Any]:
    """The values that the config lists for a key."""
    section, _, name = key.partition(".")
    if _field(base, section, name) is None:
        _loaded(file, overrides, {key: 0})  # raises, and says what it could be instead
        raise UserError(f"{where}: there is no such key: see the configs that ship")
    value = getattr(base.section(section), name)
    if not isinstance(value, tuple):
        raise UserError(
            f"{where}: the config has one value, {mistakes.show(value)}: give values, such as "
            f"{short(key)}=[{mistakes.show(value)}, ...]"
        )
    return [list(one) if isinstance(one, tuple) else one for one in value]


def _is_list(base: Config, section: str, name: str) -> bool:
    """Whether a key's value is always a list."""
    field = _field(base, section, name)
    return field is not None and get_origin(field.annotation) is tuple


def _field(base: Config, section: str, name: str) -> Any:
    """Return the pydantic field of a key; None for an unknown one."""
    known = section in type(base).model_fields or section in columns.section_names()
    model = type(base.section(section)) if known else None
    return getattr(model, "model_fields", {}).get(name)


def _loaded(file: Path, overrides: Sequence[str], values: Mapping[str, Any]) -> Config:
    """Load the config with some values; an error names them as --over has them."""
    more = [f"{key}={json.dumps(value)}" for key, value in values.items()]  # JSON is YAML, too
    try:
        return config.load(file, (*overrides, *more))
    except UserError as error:
        raise UserError(str(error).replace("--set", "--over", 1)) from None


def union(file: Path, overrides: Sequence[str], some: Sequence[Combination]) -> list[Config]:
    """Return configs whose Grams together serve combinations of the same images, the largest first.

    That is one config, of all columns and depths and as many images as any needs; but if there are several
    draws, one for each number of training images and draws, since each has other images.
    """
    kernels = [one.settings.kernel for one in some]
    more: dict[str, Any] = dict(some[0].apart)
    more["kernel.columns"] = list(dict.fromkeys(name for kernel in kernels for name in kernel.columns))
    more["kernel.depths"] = sorted({depth for kernel in kernels for depth in kernel.depths})
    datasets = [one.settings.dataset for one in some]
    tests = [dataset.test for dataset in datasets]
    more["dataset.test"] = None if None in tests else max(filter(None, tests))
    sizes = sorted({(d.train is None, (d.train or 0) * d.draws, d.train or 0, d.draws) for d in datasets})
    if all(draws == 1 for *_, draws in sizes):
        sizes = sizes[-1:]
    return [
        _loaded(file, overrides, more | {"dataset.train": train or None, "dataset.draws": draws})
        for _, _, train, draws in reversed(sizes)
    ]


def folder(values: Mapping[str, Any]) -> str:
    """Name the folder of a run of its own, such as dataset.seed=1,dataset.preprocess=zca."""
    told = ",".join(f"{key}={_word(value)}" for key, value in values.items())
    plain = re.sub(r"[^A-Za-z0-9.,=+_-]", "-", told)
    if plain == told and len(told) <= MOST_NAME:
        return told
    digest = hashlib.sha256(json.dumps(dict(values)).encode()).hexdigest()[:8]
    return f"{plain[: MOST_NAME - 9]}-{digest}"


def _word(value: Any) -> str:
    return "+".join(map(_word, value)) if isinstance(value, list) else mistakes.show(value).strip("'")
