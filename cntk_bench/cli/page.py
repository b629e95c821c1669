"""The command `page`: a run as one HTML page, written again."""

import click

from cntk_bench.cli import document, logfile, options, streams
from cntk_bench.errors import UserError
from cntk_bench.text import short


@click.command()
@click.option(
    "-o", "--output", metavar="FILE", help="The file to write.  [default: report/index.html of the run]"
)
@click.option(
    "--solve", "number", type=click.IntRange(1), metavar="N", help="Show solve N.  [default: the last]"
)
@click.option("--spectrum", is_flag=True, help="Compute the kernels' eigenvalues, however long that takes.")
@options.overridable("dataset.path=FILE if the data have moved")
@options.of_run
def page(
    directory: str, output: str | None, number: int | None, spectrum: bool, overrides: tuple[str, ...]
) -> None:
    """Write RUN as one HTML page: tables, figures, misclassified images, cost, configuration, checks.

    `solve` and `run` write this page, too; `page` writes it again, with what `verify`, `curve` and --spectrum
    have added since. The page needs no network and no other file.
    """
    from cntk_bench.analyses import page as pages

    options.require_moved(overrides)
    where = options.run_directory(directory)
    file = None if output is None else options.path(output, "--output")
    if file is not None and file.is_dir():
        raise UserError(f"--output {short(str(file))} is a folder: name a file in it, such as index.html")
    settings = where.config(overrides)
    if file is None or spectrum:  # else nothing is written into the run
        logfile.begin(where.path)
    files = pages.write(where, settings, number, file, spectrum)
    document.add(run=where.path, files=files)
    for one in files:
        streams.say(f"written: {one}")


COMMANDS = (page,)
