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
    doubted = [slope for slope in result["slopes"] if slope["doubt"]]
    if not doubted:
        return 0
    first = doubted[0]
    state = "missing" if first["slope"] is None else "not to be trusted"
    streams.complain(
        f"slopes {state}: {first['kind']} {first['measure']}: {first['doubt']}: use a smaller "
        "converge.rate, or larger widths"
    )
    return 2


COMMANDS = (converge,)
