"""Accuracy against the pooling window, as a figure, with what was published beside it (`windows`)."""

from pathlib import Path
from typing import Any

from cntk_bench.report.notes import title
from cntk_bench.report.plot import dress, image, mark_doubted, one_legend, save, write_around
from cntk_bench.report.rows import DOUBTED, count, rows
from cntk_bench.report.style import style
from cntk_bench.report.windows import Kernels, beside, studied


def draw(record: dict, path: str | Path) -> bool:
    """Accuracy against the half-width c, a line for each kernel and depth, with bars of one standard error.

    What was published for as many images is dashed; for others it has a panel of its own.

    Parameters
    ----------
    record : dict
        A record with solutions, of which `windows.studied` finds kernels.
    path : path-like
        A file ending in .png, .svg or .pdf.

    Returns
    -------
    bool
        Whether there is a figure (`plot.save`).
    """
    return save(path, lambda kind: _drawn(record, kind))


def _drawn(record: dict, kind: str) -> bytes:
    from matplotlib.figure import Figure

    table, known = {(row["column"], row["depth"]): row for row in rows(record)}, beside(record)
    kernels = studied(column for column, _ in table)
    sizes = sorted({one.sizes for one in known.values()})
    figure = Figure(figsize=(8 + 2 * len(sizes), 4.5), dpi=150, layout="constrained")
    first, *others = figure.subplots(1, 1 + len(sizes), sharex=True, squeeze=False)[0]
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
    first.set_title(f"measured, {count(data['n_train'])} / {count(data['n_test'])}", fontsize=9)
    for axes, there in zip(others, sizes, strict=True):
        _lines(axes, kernels, {key: one.accuracy for key, one in known.items() if one.sizes == there})
        axes.set_title(f"published, {' / '.join(map(count, there))}", fontsize=9)
    for axes in (first, *others):
        axes.set_xlabel("half-width c of the window, (2c + 1) x (2c + 1) pixels")
        axes.set_xticks(sorted({c for windows in kernels.values() for c in windows}))
        dress(axes)
    first.set_ylabel("test accuracy (%)")
    said = ["Bars: one standard error. Titles: training / test images."]
    if not all(row["trusted"] for row in table.values()):
        said.append(f"{DOUBTED}: not to be trusted.")
    sources = [one.source for one in known.values()] + [row["source"] for row in table.values()]
    said += [f"Published: {source}." for source in dict.fromkeys(sources) if source]
    write_around(figure, title(record), " ".join(said))
    one_legend(figure, (first, *others), "outside right center")
    return image(figure, kind)


def _lines(
    axes: Any, kernels: Kernels, values: dict[Any, float], errors: dict | None = None, dashed: bool = False
) -> None:
    """A line for each kernel and depth; deeper is paler."""
    depths = sorted({depth for _, depth in values if depth is not None})
    for kernel, windows in kernels.items():
        plain = kernel.removesuffix("-FLIP")
        look = style(f"{plain}-V{kernel.removeprefix(plain)}")
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
                markersize=5,
                markerfacecolor="white" if dashed else None,
                linestyle="--" if dashed else look.line,
                linewidth=1.5,
                elinewidth=1,
                capsize=2,
            )
