"""How a cell was solved: the settings that decide its number, and the circumstances that should not.

Settings have the dotted keys of the YAML. A requested value is replaced by the actual one where that says
more: the number of images for "all", the solver that was chosen for "auto", a column's own kappa for a
mapping by column.
"""

from collections.abc import Mapping
from typing import Any

from cntk_bench import columns
from cntk_bench.comparisons.entries import Entry
from cntk_bench.records import record
from cntk_bench.regression import ITERATIVE

# Keys that change where, when and from which file something is done, not the result.
NO_SETTINGS = (
    "dataset.path",
    "dataset.labels",
    "solve.memory",
    "solve.device",
    "solve.leave_one_out",
    "network.device",
    "network.curve",
    "baseline.gp_images",
)
# Keys that matter only if another key has one of these values.
ONLY_WITH = {
    "solve.tolerance": ("solve.solver", (*ITERATIVE, "auto")),
    "solve.iterations": ("solve.solver", (*ITERATIVE, "auto")),
    "network.validation": ("network.choose", ("validation",)),
}
PREPARATION = ("statistics", "zca_regularizer", "contrast_scale", "contrast_floor")


def settings(entry: Entry, solution: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a cell, dotted key -> value, without keys that an older record does not tell."""
    found: dict[str, Any] = {}
    for stage in (*entry.computed[-1:], entry.stage):
        for section, values in stage.get("settings", {}).items():
            if isinstance(values, dict):
                found |= {f"{section}.{key}": value for key, value in values.items()}
    found |= _solved(entry.stage, solution)
    column = solution["column"]
    found = {
        key: value[column] if isinstance(value, dict) and column in value else value  # a mapping by column
        for key, value in found.items()
        if (key.startswith("dataset.") or columns.decides(key, column)) and key not in NO_SETTINGS
    }
    found |= _images(entry.data)
    if columns.is_foreign(column):  # it may use a key where ours do not
        return found
    return {key: value for key, value in found.items() if is_used(key, found)}


def is_used(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether a key has an effect beside the other settings; True if these are unknown."""
    other, values = ONLY_WITH.get(key, ("", ()))
    return settings.get(other) in (*values, None)


def _images(data: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "dataset.name": data["name"],
        "dataset.classes": data.get("classes_used"),
        "dataset.train": data["n_train"],
        "dataset.test": data["n_test"],
        "dataset.draws": record.draws(dict(data)),
        "dataset.preprocess": data["preprocess"],
    }
    return found | {f"preprocess.{key}": data[key] for key in PREPARATION if key in data}


def _solved(stage: Mapping[str, Any], solution: Mapping[str, Any]) -> dict[str, Any]:
    found = {"solve.precision": stage["precision"]} if "precision" in stage else {}
    found |= {"solve.solver": stage["solver"]} if "solver" in stage else {}
    return found | ({"solve.normalize": solution["normalize"]} if "normalize" in solution else {})


def circumstances(entry: Entry) -> dict[str, Any]:
    """Return machine, version, commit and device as text, or None where not recorded; and times.

    compute_seconds covers all that the run computed, solve_seconds the whole solve.
    """
    stages = [*entry.computed, *([entry.stage] if entry.stage else [])]
    machines = dict.fromkeys(map(_machine, stages))
    computing = [stage["seconds"] for stage in entry.computed if _is_number(stage.get("seconds"))]
    commit = entry.stage.get("commit")
    seconds = entry.stage.get("seconds")
    return {
        "machine": "; ".join(name for name in machines if name) or None,
        "version": entry.stage.get("tool"),
        "commit": None if not isinstance(commit, str) else commit[:10] + "-dirty" * commit.endswith("-dirty"),
        "device": entry.stage.get("device"),
        "compute_seconds": sum(computing) if computing else None,
        "solve_seconds": seconds if _is_number(seconds) else None,
    }


def _machine(stage: Mapping[str, Any]) -> str | None:
    machine = stage.get("machine", {})
    cpu, cores, gpus = machine.get("cpu"), machine.get("cores"), machine.get("gpus")
    found = f"{cores} cores of {cpu}" if cores and cpu else cpu
    named = ", ".join(map(str, gpus)) if isinstance(gpus, list) else ""
    return ", ".join(filter(None, (found, named))) or None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
