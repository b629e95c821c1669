"""Gradient flow as a table and a figure: accuracy and loss against time (`analyses.flow.follow`)."""

import json
from pathlib import Path
from typing import Any

from cntk_bench.errors import UserError
from cntk_bench.report import looks
from cntk_bench.report.axes import decades, dress, finish, labelled, percents, powers
from cntk_bench.report.caveats import caveats, uninformative
from cntk_bench.report.listing import Listing
from cntk_bench.report.published import RIDGELESS
from cntk_bench.report.rows import count, name_of, number
from cntk_bench.report.style import inches, own_settings
from cntk_bench.system.files import read_plain
from cntk_bench.text import exact, one_line, short

NETWORK = ("time", "train_loss", "test_loss", "test_accuracy")
OPTIONAL = "train_accuracy"
STOPPED = {"loo": "leave-one-out", "validation": "held-out images"}


def together(results: list[dict]) -> Listing:
    """The tables of all cells as one, with columns that name the cell: for CSV, which has no titles."""
    tables = [listing(facts) for facts in results]
    rows: list[dict] = []
    doubtful: set[int] = set()
    for facts, table in zip(results, tables, strict=True):
        doubtful |= {len(rows) + place for place in table.doubtful}
        cell = {"column": facts["column"], "depth": facts["depth"]}
        rows += [cell | row | {"mark": row[""]} for row in table.rows]
    forms = {"column": "s", "depth": "d"} | {head or "mark": form for head, form in tables[0].forms.items()}
    return Listing(tables[0].title, forms, rows, doubtful=frozenset(doubtful), marked="test")


def listing(facts: dict) -> Listing:
    """The table of one cell: a row for each time, the last for infinite time."""
    forms = {
        "t tr(K)/n": ".4g",
        "t": ".4g",
        "train loss": ".5f",
        "train": ".2f",
        "test loss": ".5f",
        "test": ".2f",
        "s.e.": ".2f",
        "stop error": ".5f",
        "": "s",
    }
    if facts["stop"] == "none":
        del forms["stop error"]
    keys = ("relative_time", "time", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
            "standard_error", "stop_error")  # fmt: skip
    heads = ("t tr(K)/n", "t", "train loss", "train", "test loss", "test", "s.e.", "stop error")
    points, stopped = [*facts["curve"], facts["limit"]], facts["stopped"]
    rows = []
    for point in points:
        row: dict[str, Any] = {head: number(point[key]) for head, key in zip(heads, keys, strict=True)}
        here = stopped is not None and point["time"] == stopped["time"]
        row[""] = "<- stop" if here else "t = inf" if point is points[-1] else ""
        rows.append(row)
    doubtful = frozenset(i for i, point in enumerate(points) if point["doubt"])
    return Listing(title(facts), forms, rows, tuple(notes(facts)), doubtful, "test")


def title(facts: dict) -> str:
    """The cell, the data and the ridge, in a line."""
    data = facts["data"]
    return (
        f"{short(facts['run'])}: gradient flow of {name_of(facts)}, "
        f"{short(data['name'])}, {count(data['n_train'])} training and {count(data['n_test'])} test images, "
        f"ridge {exact(facts['ridge'])}"
    )


def notes(facts: dict) -> list[str]:
    """What a reader must know to interpret the numbers."""
    said = [
        "t: time of gradient flow on half the sum of squares, at rate 1 and from zero output; losses are "
        "mean squared errors over images and classes; accuracies in percent.",
        *caveats([facts]),
    ]
    scores = (
        (point["test_accuracy"], point["standard_error"]) for point in [*facts["curve"], facts["limit"]]
    )
    said += uninformative(scores, facts["data"]["n_test"])
    stopped = facts["stopped"]
    if stopped is not None:
        rule = STOPPED[facts["stop"]]
        if facts["held_out"]:
            rule = f"{facts['held_out']} {rule} (with a flow on the others, at the same t)"
        said.append(
            f"Stopped at t tr(K)/n = {stopped['relative_time']:.4g}, t = {stopped['time']:.4g}, by {rule}: "
            f"test accuracy {stopped['test_accuracy']:.2f} +- {stopped['standard_error']:.2f}; at infinite "
            f"time {facts['limit']['test_accuracy']:.2f} +- {facts['limit']['standard_error']:.2f}. "
            "The test images had no part in this choice."
        )
        if stopped["edge"] == "last" and facts["ended"]:
            said.append("Stopping early gains nothing: the last time listed is the best.")
        elif stopped["edge"] is not None:
            others = {"first": "earlier", "last": "later", "only": "other"}[stopped["edge"]]
            said.append(
                f"The {stopped['edge']} time listed is the best: {others} ones may be better (--times)."
            )
    if facts["zeros"]:
        one = facts["zeros"] == 1
        said.append(
            f"{count(facts['zeros'])} eigenvalue{'s' * (not one)} of K {'is' if one else 'are'} zero within "
            "rounding, as of equal images or of a kernel of low rank, and left out."
        )
    known = facts["published"]
    if known is not None:
        said.append(f"Published without stopping: {known['accuracy']:.2f} ({known['source']}).")
        said += [RIDGELESS] if facts["ridge"] else []
    for point in (stopped, facts["limit"]):
        if point is not None and point["doubt"]:
            said.append(f"? Not to be trusted: {point['doubt']}.")
            break
    return said


def network_curve(path: str | Path) -> dict:
    """Read a finite network's curve, to be drawn over the flow of its kernel.

    The file is a JSON object::

        time           list of numbers, at least 0, ascending: absolute time t, in the units of gradient flow
                       of half the sum over training images and classes of the squared error, at rate 1. For
                       gradient descent on c times that half sum, t = steps x learning rate x c x kappa^2,
                       where the network's output is kappa times that of the kernel's parametrisation.
        train_loss     list of as many numbers: mean over images and classes of the squared error
        test_loss      the same of the test images
        test_accuracy  list of as many numbers, in percent
        label          text of the legend
        train_accuracy the same of the training images; may be left out

    A list may hold null where something was not measured; other keys are ignored.

    Raises
    ------
    UserError
        If it cannot be read, or is not that.
    """
    where = short(str(path), 100)
    try:
        found = json.loads(read_plain(path))
    except OSError as error:
        raise UserError(
            f"cannot read --network {where} ({error.strerror or error}): give a JSON file"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"--network {where} is not JSON ({one_line(error, 60)}): give a network's curve"
        ) from None
    wrong = _wrong(found)
    if wrong:
        raise UserError(f"--network {where} is no network's curve: {wrong}")
    found.setdefault(OPTIONAL, [None] * len(found["time"]))
    listed = {key: [number(value) for value in found[key]] for key in (*NETWORK, OPTIONAL)}
    return listed | {"label": found["label"]}


def _wrong(found: Any) -> str | None:
    if not isinstance(found, dict) or not isinstance(found.get("label"), str):
        return "it must be an object with a label"
    for key in (*NETWORK, *(OPTIONAL,) * (OPTIONAL in found)):
        values = found.get(key)
        if not isinstance(values, list) or len(values) != len(found["time"]) or not values:
            return f"{key} must be a list, as long as time"
        if any(value is not None and number(value) is None for value in values):
            return f"{key} must hold finite numbers, or null"
    times = [number(value) for value in found["time"]]
    if any(time is None or time < 0 for time in times) or times != sorted(
        times, key=lambda time: time or 0.0
    ):
        return "time must hold ascending numbers of at least 0"
    return None


@own_settings()
def figure(facts: dict, *, width: float | str = "page", words: tuple[str, str] | None = None) -> Any:
    """Accuracy and loss against t, on training and test images, with the stopping time and the end marked.

    Parameters
    ----------
    facts : dict
        As `analyses.flow.follow` returns; its key "networks", if present, holds curves of finite networks
        (`network_curve`) to be drawn over it.
    width, words
        As for `depth.figure`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    size = inches(width)
    made = Figure(figsize=(size, 0.45 * size + 1.3), layout="constrained")
    accuracy, loss = made.subplots(2, 1, sharex=True)
    colour = looks.of(facts["column"]).colour
    points, unit = facts["curve"], facts["unit"]
    t = [point["relative_time"] for point in points]
    for axes, key in ((accuracy, "accuracy"), (loss, "loss")):
        axes.plot(t, [p[f"test_{key}"] for p in points], color=colour, linewidth=1.6, label="kernel, test")
        axes.plot(t, [p[f"train_{key}"] for p in points], color=colour, linewidth=1.0, linestyle="--",
                  label="kernel, training")  # fmt: skip
        axes.axhline(facts["limit"][f"test_{key}"], color=colour, linewidth=1, linestyle=":",
                     label="kernel, test, infinite time")  # fmt: skip
        dress(axes)
    accuracy.fill_between(
        t,
        [p["test_accuracy"] - p["standard_error"] for p in points],
        [p["test_accuracy"] + p["standard_error"] for p in points],
        color=colour,
        alpha=0.2,
        linewidth=0,
    )
    if facts["published"]:
        label = "published, no stopping"
        accuracy.axhline(
            facts["published"]["accuracy"], color="0.3", linewidth=1.2, linestyle="-.", label=label
        )
    if facts["stopped"]:
        rule = STOPPED[facts["stop"]]
        loss.plot(
            t,
            [p["stop_error"] for p in points],
            color="0.3",
            linewidth=1.5,
            linestyle=(0, (1, 1)),
            label=f"kernel, {rule}",
        )
        for axes in (accuracy, loss):
            axes.axvline(facts["stopped"]["relative_time"], color="0.3", linewidth=1, label=f"stop by {rule}")
    networks = facts.get("networks", ())
    for network, (shade, marker) in zip(networks, _styles(len(networks)), strict=True):
        _overlay((accuracy, loss), network, unit, shade, marker)
    accuracy.set_ylabel("accuracy (%)")
    loss.set_ylabel("mean squared error")
    loss.set_yscale("log")
    loss.set_xscale("log")
    lowest = min([p["test_loss"] for p in points] + [p["stop_error"] or float("inf") for p in points])
    loss.set_ylim(bottom=lowest / 30)  # errors of training images go to 0
    loss.set_xlabel("time t, in units of n / trace(K)")
    top = accuracy.secondary_xaxis("top", functions=(lambda x: x * unit, lambda x: x / unit))
    top.set_xlabel("time t of gradient flow on half the sum of squares")
    for axis in (loss.xaxis, loss.yaxis):
        decades(axis)
    powers(top.xaxis)
    percents(accuracy.yaxis)
    finish(made, (accuracy, loss), labelled((accuracy, loss)), words)
    return made


def note(facts: dict) -> str:
    """What a reader must know of the figure."""
    return " ".join(["Band: one standard error.", *notes(facts)])


def _styles(number: int) -> list[tuple[str, str]]:
    """Colour and marker of each network's curve."""
    return [(looks.PALETTE[i % len(looks.PALETTE)], "ox+^vsD*"[i % 8]) for i in range(number)]


def _overlay(both: tuple[Any, Any], network: dict, unit: float, colour: str, marker: str) -> None:
    """A network's curve on the axes of accuracy and loss; logarithmic times leave out points at t = 0."""
    names = (("test_accuracy", "train_accuracy"), ("test_loss", "train_loss"))
    for axes, keys in zip(both, names, strict=True):
        for key in keys:
            pairs = zip(network["time"], network[key], strict=True)
            shown = [(time / unit, value) for time, value in pairs if time > 0 and value is not None]
            if not shown:
                continue
            training = key.startswith("train")
            axes.plot(
                *zip(*shown, strict=True),
                color=colour,
                marker=marker,
                markersize=3,
                linewidth=1,
                linestyle="--" if training else "-",
                label=f"{short(network['label'], 60)}, {'training' if training else 'test'}",
            )
