"""Accuracy against the pooling window, as a figure, with what was published beside it (`windows`)."""

from typing import Any

from cntk_bench.report import looks
from cntk_bench.report.axes import LETTER, dress, finish, labelled, mark_doubted, percents
from cntk_bench.report.rows import DOUBTED, count, rows
from cntk_bench.report.style import inches, own_settings
from cntk_bench.report.windows import Kernels, beside, studied

LEAST = 2.2  # inches of a panel; narrower ones stand below each other


@own_settings()
def figure(record: dict, *, width: float | str = "page", words: tuple[str, str] | None = None) -> Any:
    """Accuracy against the half-width c, a line for each kernel and depth, with bars of one standard error.

    What was published for the same numbers of images is dashed; what was for others has its own panel.

    Parameters
    ----------
    record : dict
        A record with solutions, of which `windows.studied` finds kernels.
    width, words
        As for `depth.figure`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    table, known = {(row["column"], row["depth"]): row for row in rows(record)}, beside(record)
    kernels = studied(column for column, _ in table)
    sizes = sorted({one.sizes for one in known.values()})
    size, panels = inches(width), 1 + len(sizes)
    across = panels if size / panels >= LEAST else 1
    down = -(-panels // across)
    made = Figure(figsize=(size, down * (0.45 * size / across**0.7 + 0.6)), layout="constrained")
    first, *others = made.subplots(down, across, sharex=True, squeeze=False).flatten()
    measured = {key: row for key, row in table.items() if row["accuracy"] is not None}
    _lines(first, kernels, {key: row["accuracy"] for key, row in measured.items()},
           {key: row["standard_error"] or 0 for key, row in measured.items()})  # fmt: skip
    alike = {key: row["published"] for key, row in table.items() if row["published"] is not None}
    _lines(first, kernels, alike, dashed=True)
    for kernel in kernels.values():
        for c, column in kernel.items():
            for (name, _), row in measured.items():
                if name == column and not row["trusted"]:
                    mark_doubted(first, c, row["accuracy"])
    data = record["data"]
    first.set_title(f"measured, {count(data['n_train'])} / {count(data['n_test'])}")
    for axes, there in zip(others, sizes, strict=True):
        _lines(axes, kernels, {key: one.accuracy for key, one in known.items() if one.sizes == there})
        axes.set_title(f"published, {' / '.join(map(count, there))}")
    for axes in (first, *others):
        _ticks(axes, sorted({c for windows in kernels.values() for c in windows}), 72 * 0.8 * size / across)
        percents(axes.yaxis)
        dress(axes)
        axes.set_ylabel("test accuracy (%)")
    first.set_ylabel("test accuracy (%)" if words else "test accuracy ± s.e. (%)")
    for axes in (first, *others)[-across:]:
        axes.set_xlabel("half-width c of the window")
    finish(made, (first, *others), labelled((first, *others)), words)
    return made


def note(record: dict) -> str:
    """What a reader must know of the figure."""
    table, known = rows(record), beside(record)
    said = [
        "Bars: one standard error. Titles: training / test images. A window of half-width c has "
        "(2c + 1) x (2c + 1) pixels."
    ]
    if not all(row["trusted"] for row in table):
        said.append(f"{DOUBTED}: not to be trusted.")
    sources = [one.source for one in known.values()] + [row["source"] for row in table]
    said += [f"Published: {source}." for source in dict.fromkeys(sources) if source]
    return " ".join(said)


def _ticks(axes: Any, halves: list[int], points: float) -> None:
    """A tick for each half-width, and numbers at as many as have room on an axis of `points`."""
    wide = 7 * LETTER * (len(str(halves[-1])) + 1)
    shown = halves[:1]
    for c in halves[1:]:
        if (c - shown[-1]) * points >= wide * max(1, halves[-1] - halves[0]):
            shown.append(c)
    axes.set_xticks(shown)
    axes.set_xticks(halves, minor=True)


def _lines(
    axes: Any, kernels: Kernels, values: dict[Any, float], errors: dict | None = None, dashed: bool = False
) -> None:
    """A line for each kernel and depth; deeper is paler."""
    depths = sorted({depth for _, depth in values if depth is not None})
    for kernel, windows in kernels.items():
        plain = kernel.removesuffix("-FLIP")
        look = looks.of(f"{plain}-V{kernel.removeprefix(plain)}")
        for place, depth in enumerate(depths):
            cells = [
                (c, (column, depth)) for c, column in sorted(windows.items()) if (column, depth) in values
            ]
            if not cells:
                continue
            axes.errorbar(
                [c for c, _ in cells],
                [values[key] for _, key in cells],
                [errors[key] for _, key in cells] if errors else None,
                label=f"{kernel}, depth {depth}" + ", published" * dashed,
                color=look.colour,
                alpha=1 - 0.7 * place / len(depths),
                marker=look.marker,
                markerfacecolor="white" if dashed else None,
                linestyle="--" if dashed else look.line,
                elinewidth=0.8,
            )
