"""Estimates of the objects, requests and bytes of a store in an object store; no prices.

A tile is one object per readout, written once; its line is written twice (`segments`). Before the tile and
before the line, the writer asks whether the store is still the same, and once whether another process has
written the tile. While it computes, a process lists the journals every `REFRESH` seconds, reads the lines of
others, and gives a sign of life every `BEAT` seconds.
"""

from dataclasses import dataclass, fields

from cntk_bench.grams.claims import BEAT
from cntk_bench.grams.lines import Line
from cntk_bench.grams.missing import Missing
from cntk_bench.grams.segments import SEGMENT
from cntk_bench.grams.tasks import REFRESH
from cntk_bench.grams.tiles import Plan, Tile

ASKED = {"put": "PUT", "get": "GET", "head": "HEAD", "list": "LIST", "delete": "DELETE"}
DIGEST = 2**64 - 1  # a digest with as many digits as any
# Other objects: metadata of the group, its arrays and the images' arrays, and these six arrays' chunks.
OTHERS = 15


@dataclass(frozen=True)
class Traffic:
    """Numbers of requests by kind, and bytes of objects sent to the server (up) and received (down).

    Retries after a failure are not counted; a request that removes many objects counts as one.
    """

    put: int = 0
    get: int = 0
    head: int = 0
    list: int = 0
    delete: int = 0
    up: int = 0
    down: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __str__(self) -> str:
        """The requests in words."""
        some = {word: getattr(self, name) for name, word in ASKED.items()}
        return ", ".join(f"{count:,} {word}" for word, count in some.items() if count)


def journals(plan: Plan, writers: int) -> tuple[int, int]:
    """Upper bound on the number of objects that the journals of so many writers end up as; their bytes."""
    joined = plan.count // SEGMENT + (plan.count % SEGMENT > 0)
    return min(plan.count, joined + writers - 1), plan.count * _line(plan)


def _line(plan: Plan) -> int:
    """Approximate bytes of a line, from one for the last tile with typical times."""
    readouts, last = tuple(range(plan.readouts)), max(plan.blocks("test"), plan.blocks("train")) - 1
    tile = Tile("train", last, last)
    line = Line(tile, readouts, (DIGEST,) * plan.readouts, None, 1.234567, 1234567890.123, machine="0" * 8)
    return len(str(line)) + 1


def computing(missing: Missing, seconds: float, writers: int = 1) -> Traffic:
    """Traffic of computing what a store lacks, in so many seconds by so many processes at once.

    GET, LIST and the bytes received are upper bounds. Making and opening the store takes about 60 requests
    more per process, which are not included.
    """
    count, line = missing.count, _line(missing.plan)
    joins = count // SEGMENT + (count % SEGMENT > 1) + writers - 1
    others = (writers - 1) * count  # lines that each reads of all the others
    return Traffic(
        put=missing.chunks + count + joins + int(writers * seconds / BEAT),
        get=others,
        head=3 * count,
        list=int(writers * seconds / REFRESH),
        delete=joins,
        up=missing.bytes + 2 * count * line,
        down=others * line,
    )


def reading(plan: Plan) -> Traffic:
    """Traffic of reading every matrix of a plan once."""
    return Traffic(get=plan.count * plan.readouts, down=plan.bytes)


def iteration(plan: Plan) -> Traffic:
    """Traffic of one pass over the training matrix of one readout and draw."""
    one = Plan(plan.n_train // plan.draws, 0, plan.tile, 1)
    return Traffic(get=one.count, down=one.bytes)
