"""Commands that draw: figures."""

import click

from cntk_bench.cli import document, options, streams

NAMES = ("accuracy", "windows", "ridges", "confusion", "mistakes", "spectra", "curve", "flow", "posterior",
         "converge")  # fmt: skip  # analyses.figures.NAMES, whose import would slow --help


@click.command()
@click.option("--only", type=click.Choice(NAMES), multiple=True, metavar="FIGURE",
              help=f"One of {', '.join(NAMES)}. May be repeated.  [default: all]")  # fmt: skip
@click.option("--format", "kinds", type=click.Choice(["pdf", "svg", "png"]), multiple=True,
              default=("pdf",), show_default=True, help="File format. May be repeated.")  # fmt: skip
@click.option("--width", default="text", show_default=True, metavar="WIDTH",
              help="column (3.25 inches), text (5.5), page (6.75), or a number of inches.")  # fmt: skip
@click.option("-o", "--output", metavar="DIR", help="Folder to write to.  [default: RUN/figures]")
@click.option(
    "--solve", "number", type=click.IntRange(1), metavar="N", help="Figures of solve N.  [default: the last]"
)
@click.option("--words", is_flag=True, help="Include titles and notes in the figures.")
@options.overridable("dataset.path=FILE if the data have moved")
@options.of_run
def figures(
    directory: str,
    only: tuple[str, ...],
    kinds: tuple[str, ...],
    width: str,
    output: str | None,
    number: int | None,
    words: bool,
    overrides: tuple[str, ...],
) -> int:
    """Write the figures of RUN for a paper: those of its HTML page and of its analyses.

    Fonts are embedded, and a column has the same colour in every figure. captions.txt lists what each
    figure's caption must say.
    """
    from cntk_bench.analyses import figures as stage
    from cntk_bench.report import style

    size = style.inches(width)
    options.require_moved(overrides)
    where = options.run_directory(directory)
    folder = where.path / "figures" if output is None else options.path(output, "--output")
    settings = where.config(overrides) if overrides else None
    drawings, absent = stage.found(where, settings, number, dict.fromkeys(only))
    kinds = tuple(dict.fromkeys(kinds))
    files = stage.write(drawings, folder, kinds, size, words)
    captions = folder / stage.CAPTIONS
    document.add(run=directory, figures=files, captions=captions, absent=absent)
    for file in files:
        streams.say(f"written: {file}")
    streams.say(f"captions: {captions}")
    for why in dict.fromkeys(absent.values()):
        names = ", ".join(name for name in absent if absent[name] == why)
        streams.complain(f"no figure {names}: {why}")
    return 0 if len(files) == len(drawings) * len(kinds) else 2


COMMANDS = (figures,)
