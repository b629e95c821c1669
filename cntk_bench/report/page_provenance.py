"""Where a page's numbers come from: stages and their cost, machines, checks, fingerprints."""

from typing import Any

from cntk_bench.report.page_tables import Table
from cntk_bench.report.rows import DOUBTED, MISSING, cell, count, is_trusted, name_of, number
from cntk_bench.text import duration, short, size

PASSED, FAILED, UNKNOWN = "passed", "failed", "not done"
CHANGING = ("compute", "repair")  # stages that make an earlier check outdated


def stages(record: dict) -> list[dict]:
    """The stages of a record that can be read."""
    found = record.get("stages")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def last(record: dict) -> list[dict]:
    """The stages that led to the solve that is shown: all but those of other solves."""
    shown = record.get("solve")
    return [s for s in stages(record) if s.get("stage") != "solve" or s.get("solve") in (None, shown)]


def costs(record: dict) -> Table:
    """A line for each stage: when, how long, how many pairs of images, cores, memory."""
    heads = ["stage", "started (UTC)", "seconds", "pairs", "pairs per second", "cores", "core hours"]
    rows = []
    for one in last(record):
        seconds, cores = number(one.get("seconds")), _cores(one)
        rows.append(
            [
                short(one.get("stage", "?"), 20),
                _moment(one),
                cell(seconds, ",.1f"),
                cell(number(one.get("pairs")), ",.0f"),
                cell(number(one.get("pairs_per_second")), ",.1f"),
                cell(cores, ".0f"),
                cell(core_hours(one), ",.3g"),
                _memory(one),
            ]
        )
    return Table("Time and memory of each stage", [*heads, "peak memory"], rows, text_columns=frozenset({1}))


def core_hours(stage: dict) -> float | None:
    """Wall time times the cores available to the stage, used or not."""
    seconds, cores = number(stage.get("seconds")), _cores(stage)
    return None if seconds is None or cores is None else seconds * cores / 3600


def total(record: dict) -> str:
    """What all stages took, in a sentence."""
    found = last(record)
    seconds = [number(one.get("seconds")) for one in found]
    known = sum(one for one in seconds if one is not None)
    hours = sum(core_hours(one) or 0 for one in found)
    more = "" if None not in seconds else " at least: no time is recorded for a stage that was killed"
    return f"{duration(known)} of wall time in all stages together, {hours:.3g} core hours{more}"


def _cores(stage: dict) -> float | None:
    machine = stage.get("machine")
    return number(machine.get("cores")) if isinstance(machine, dict) else None


def _memory(stage: dict) -> str:
    found = number(stage.get("peak_memory"))
    return MISSING if found is None else size(found)


def _moment(stage: dict) -> str:
    return short(str(stage.get("started", MISSING))[:16].replace("T", " "), 20)


def environments(record: dict) -> list[dict[str, Any]]:
    """Each distinct machine and set of versions: which stages ran there, and what is known of it."""
    found: list[dict[str, Any]] = []
    for one in last(record):
        machine, versions = _mapping(one, "machine"), _mapping(one, "versions")
        memory, gpus = number(machine.get("memory")), machine.get("gpus")
        facts = {
            "cntk-bench": short(one.get("tool", MISSING), 40),
            "commit": short(one.get("commit") or "none: an installed package", 60),
            "platform": short(machine.get("platform") or MISSING),
            "processor": short(machine.get("cpu") or MISSING),
            "cores": cell(number(machine.get("cores")), ".0f"),
            "memory": MISSING if memory is None else size(memory),
            "GPUs": short(", ".join(map(str, gpus)), 120) if isinstance(gpus, list) and gpus else "none",
        }
        libraries = [(short(str(name), 30), short(str(version), 30)) for name, version in versions.items()]
        name = short(one.get("stage", "?"), 20)
        for other in found:
            if (other["facts"], other["libraries"]) == (facts, libraries):
                other["stages"] += [name] if name not in other["stages"] else []
                break
        else:
            found.append({"facts": facts, "libraries": libraries, "stages": [name]})
    return found


def _mapping(stage: dict, key: str) -> dict[str, Any]:
    found = stage.get(key)
    return found if isinstance(found, dict) else {}


def checks(record: dict) -> list[tuple[str, str, str]]:
    """What was checked: (what, PASSED, FAILED or UNKNOWN, how it went)."""
    return [_solutions(record), *_verified(record)]


def _solutions(record: dict) -> tuple[str, str, str]:
    solutions = record["solutions"]
    doubted = [one for one in solutions if not is_trusted(one)]
    what = "Solutions: residuals in float64, and possible effects of the errors of float32 kernels"
    if not doubted:
        return what, PASSED, f"all {count(len(solutions))} can be trusted"
    names = ", ".join(map(name_of, doubted[:5])) + (", ..." if len(doubted) > 5 else "")
    return what, FAILED, f"{len(doubted)} of {len(solutions)} are marked {DOUBTED}: {names}"


def _verified(record: dict) -> list[tuple[str, str, str]]:
    """What the last `verify` found."""
    tiles = "Stored kernels: digests, finite, symmetric, K_ij² ≤ K_ii K_jj"
    entries = "Kernels of sampled pairs, recomputed in float64"
    found = stages(record)
    places = [i for i, one in enumerate(found) if one.get("stage") == "verify"]
    if not places:
        return [(tiles, UNKNOWN, "verify was not run"), (entries, UNKNOWN, "verify was not run")]
    one, later = found[places[-1]], found[places[-1] + 1 :]
    since = "; the run was changed since" if any(s.get("stage") in CHANGING for s in later) else ""
    when = f"{_moment(one)} UTC{since}"
    checked, damaged, unreadable, missing, again = (
        int(number(one.get(key)) or 0) for key in ("checked", "damaged", "unreadable", "missing", "entries")
    )
    told = f"{count(checked)} tiles checked, {damaged} damaged"
    told += f", {unreadable} cannot be read" if unreadable else ""
    told += f", {count(missing)} not computed" if missing else ""
    results = []
    if checked or missing:
        results.append((tiles, FAILED if damaged or unreadable else PASSED, f"{told}, {when}"))
    if again:
        error = number(one.get("largest_error"))
        told = f"{count(again)} entries, largest relative error {cell(error, '.1e')}, {when}"
        results.append((entries, FAILED if number(one.get("entries_wrong")) else PASSED, told))
    elif checked:
        results.append((entries, UNKNOWN, f"verify sampled none, {when}"))
    trained, wrong, left = (
        int(number(one.get(key)) or 0) for key in ("trained", "trained_damaged", "trained_missing")
    )
    if trained or left:
        absent = f"{left} missing, " if left else ""
        told = f"{count(trained)} pieces checked, {wrong} damaged, {absent}{when}"
        result = FAILED if wrong else UNKNOWN if left else PASSED
        results.append(("Trained networks: stored results are undamaged", result, told))
    return results


def fingerprints(record: dict) -> Table:
    """SHA-256 of images and Gram matrices, by which others can tell whether they have the same."""
    data = record["data"]
    rows = [
        [name, _hexadecimal(data.get(key))]
        for name, key in (("images and labels", "fingerprint"), ("images, one by one", "images"))
        if data.get(key)
    ]
    of_draws = data.get("images_of_draws")
    if isinstance(of_draws, list):
        rows += [[f"images of draw {i}", _hexadecimal(one)] for i, one in enumerate(of_draws[:100], 1)]
    grams: Any = next((s.get("grams") for s in reversed(last(record)) if s.get("stage") == "solve"), None)
    if isinstance(grams, dict):
        rows += [
            [f"Gram {short(str(name), 40)}", _hexadecimal(one)] for name, one in list(grams.items())[:500]
        ]
    return Table("SHA-256 of images and Gram matrices", ["of", "SHA-256"], rows, text_columns=frozenset({1}))


def _hexadecimal(value: Any) -> str:
    return short(str(value), 64)
