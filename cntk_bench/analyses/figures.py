"""Figures of a run's solves and analyses, for a paper; each with what its caption must say."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cntk_bench.analyses import findings
from cntk_bench.config.config import Config
from cntk_bench.errors import UserError
from cntk_bench.records import sealed
from cntk_bench.records.directory import Run
from cntk_bench.records.solves import none_now, numbers
from cntk_bench.report import converge, curve, flow, notes, page_figures, posterior, style
from cntk_bench.report.findings import Findings
from cntk_bench.runs.solve import solved
from cntk_bench.system.files import write_atomic, writing
from cntk_bench.text import short

CAPTIONS = "captions.txt"
OF_RECORD = ("accuracy", "windows")
FOUND = ("ridges", "confusion", "mistakes", "spectra")
ANALYSES = ("curve", "flow", "posterior", "converge")
NAMES = (*OF_RECORD, *FOUND, *ANALYSES)


class Drawing(NamedTuple):
    """One figure.

    name : of its file, without extension.
    make : called with width and words (see `report.depth.figure`), returns the matplotlib Figure.
    words : the title above it and the note below, if they are wanted.
    caption : what its caption must say if it is drawn without words.
    """

    name: str
    make: Callable[..., Any]
    words: tuple[str, str]
    caption: str


def found(
    run: Run, settings: Config | None = None, number: int | None = None, only: Collection[str] = ()
) -> tuple[list[Drawing], dict[str, str]]:
    """Find the figures of a run: of a solve (by default the last), flows, curves, posteriors, widths.

    Parameters
    ----------
    run : Run
    settings : Config, optional
        Says where the data set is now; by default the run's own.
    number : int, optional
        The solve's number.
    only : collection of str
        Some of `NAMES`; by default all that the run has. Nothing is computed for the others.

    Returns
    -------
    drawings : list of Drawing
    absent : dict of str
        Names of figures of the solve that cannot be drawn -> why.

    Raises
    ------
    UserError
        If nothing was solved or analysed, one of `only` is missing, or a file is damaged.
    """
    wanted = tuple(name for name in NAMES if not only or name in only)
    drawings, absent = _of_solve(run, settings, number, wanted)
    drawings += _of_analyses(run, wanted)
    there = {drawing.name.partition("-")[0] for drawing in drawings}
    for name in only:
        if name not in there:
            why = absent.get(name, _how(name))
            raise UserError(f"{short(str(run.path))} has no figure {short(name)}: {why}")
    if not drawings and numbers(run):
        raise none_now(run)
    if not drawings:
        raise UserError(f"{short(str(run.path))} has nothing to draw yet: solve it, or analyse it, first")
    return drawings, absent


def _how(name: str) -> str:
    """Return what a user has to do to get a figure."""
    return {
        "accuracy": "run `solve` first",
        "windows": "it is of three LAP columns or more, such as CNTK-LAP1, CNTK-LAP2 and CNTK-LAP4",
        "ridges": "it is of a solve of several ridges, such as --set 'solve.ridge=[0.0, 0.1]'",
        "confusion": "run `solve` first",
        "mistakes": "it is of the test images that a kernel misclassifies",
        "spectra": "it is of kernels, whose Gram matrices are computed",
    }.get(name, f"run `{name}` first")


def _of_solve(
    run: Run, settings: Config | None, number: int | None, wanted: Collection[str]
) -> tuple[list[Drawing], dict[str, str]]:
    if not run.record.exists() and number is None:
        return [], {}  # such as a run of finite networks alone
    past = solved(run, number)
    if not past["solutions"]:
        of_solves = (name for name in wanted if name in (*OF_RECORD[:1], *FOUND))
        return [], dict.fromkeys(of_solves, str(none_now(run, "the run"))) if numbers(run) else {}
    known, folder = Findings(), run.solves / str(past.get("solve"))
    if set(wanted) & set(FOUND) and folder.is_dir():
        known = findings.gather(run, settings or run.config(), past, folder, {*wanted} & {*FOUND})
    makers, title = page_figures.of_solve(past, known), notes.title(past)
    sketches = [makers[name]() for name in wanted if name in makers]
    drawings = [
        Drawing(one.key, one.make, (title, one.note or one.caption), f"{title}. {one.caption}")
        for one in sketches
        if one is not None
    ]
    return drawings, {name: why for name, why in known.absent.items() if name in wanted}


def _of_analyses(run: Run, wanted: Collection[str]) -> Iterator[Drawing]:
    for name, of in (("flow", flow), ("posterior", posterior)):
        for file, facts in _kept(run, name) if name in wanted else ():
            yield _drawing(f"{name}-{file.stem}", of, facts, file)
    yield from _curves(run) if "curve" in wanted else ()
    for file, facts in _kept(run, "converge") if "converge" in wanted else ():
        yield _drawing("converge", converge, facts, file)


def _curves(run: Run) -> Iterator[Drawing]:
    """Yield a figure for each group of comparable learning curves, numbered if there are several."""
    kept = _kept(run, "curve")
    try:
        groups = curve.alike([facts for _, facts in kept])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise _other_version(run.path / "curve") from None
    for number, alike in enumerate(groups, 1):
        name = "curve" if len(groups) == 1 else f"curve-{number}"
        yield _drawing(name, curve, alike, run.path / "curve")


def _drawing(name: str, of: Any, facts: Any, file: Path) -> Drawing:
    try:
        title, note = of.title(facts), of.note(facts)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        raise _other_version(file) from None
    return Drawing(name, partial(of.figure, facts), (title, note), f"{title}. {note}")


def _other_version(file: Path) -> UserError:
    return UserError(f"{short(str(file))} is damaged, or of another version: analyse again")


def _kept(run: Run, name: str) -> list[tuple[Path, Any]]:
    """Return the stored results of an analysis: files, and their contents."""
    found = []
    for file in sorted((run.path / name).glob("*.json")):
        if (facts := sealed.read(file)) is None:
            raise _other_version(file)
        found.append((file, facts))
    return found


def write(
    drawings: list[Drawing], folder: Path, kinds: tuple[str, ...], width: float | str, words: bool
) -> list[Path]:
    """Write each figure in each kind, and `CAPTIONS`; return the figures' files.

    Raises
    ------
    UserError
        If the folder cannot be written, or the width is not possible.
    """
    style.inches(width)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = []
    for one in drawings:
        make = partial(one.make, width=width, words=one.words if words else None)
        files += style.save(folder / one.name, make, kinds)
    said = [f"{one.name}\n{one.caption}\n" for one in drawings]
    write_atomic(folder / CAPTIONS, "\n".join(said))
    return files
