"""Commands about finite networks: converge."""

import click

from cntk_bench.cli import document, logfile, options, progress, streams


@click.command()
@options.configured
def converge(config: str, overrides: tuple[str, ...], backend: str | None, output: str | None) -> int:
    """Measure how the finite networks of CONFIG approach their kernels as width grows.

    For V, GAP and fully connected networks: the error of the empirical kernels, their drift and the movement
    of the weights during training, and the lazy-training kappa, each with its slope against width. Continues
    an interrupted call. Writes RUN/converge: tables, JSON and figures.
    """
    from cntk_bench.analyses import converge as stage
    from cntk_bench.report import converge as tables
    from cntk_bench.report import listing

    settings, where = options.settings(config, overrides, backend, output)
    logfile.begin(where.path)
    with progress.bar("measuring networks") as advance:
        try:
            result = stage.converge(where, settings, lambda done, total: advance(0, total=total, done=done))
        except KeyboardInterrupt as stopped:
            stopped.add_note("networks measured until then are kept; the same command goes on from there")
            raise
    folder = stage.folder_of(where)
    tables.write(result, folder)
    document.add(run=where.path, folder=folder, result=result)
    streams.say(listing.written(tables.listing(result)))
    streams.say(f"tables and figures are in {folder}")
    doubts = [f"{s['kind']} {s['measure']}: {s['doubt']}" for s in result["slopes"] if s["doubt"]]
    if not doubts:
        return 0
    streams.complain(f"slopes not to be trusted: {doubts[0]}: use a smaller converge.rate, or larger widths")
    return 2


COMMANDS = (converge,)
