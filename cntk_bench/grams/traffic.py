"""What a store among objects will be, and what computing and reading it will ask of its server; no prices.

A tile is an object per readout, written once; its line is written twice (`segments`), and before the tile
and before the line it is asked whether the store is still the same. While it computes, a process lists the
journals every `REFRESH` seconds, reads the lines of others, and shows every `BEAT` seconds that it is alive.
"""

from dataclasses import dataclass, fields

from cntk_bench.grams.claims import BEAT
from cntk_bench.grams.lines import Line
from cntk_bench.grams.segments import SEGMENT
from cntk_bench.grams.tasks import REFRESH
from cntk_bench.grams.tiles import Plan, Tile

ASKED = {"put": "PUT", "get": "GET", "head": "HEAD", "list": "LIST", "delete": "DELETE"}
DIGEST = 2**64 - 1  # of as many digits as any
# What else there is: the group's, the arrays' and the images' metadata, and six arrays of facts of images.
OTHERS = 15


@dataclass(frozen=True)
class Traffic:
    """Requests, by their kind, and bytes of objects that go to the server (up) and come from it (down).

    Requests that are made again after a failure are not counted; one that removes many objects is one.
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
    """Objects that the journals of so many writers are in the end, at most, and their bytes."""
    joined = plan.count // SEGMENT + (plan.count % SEGMENT > 0)
    return min(plan.count, joined + writers - 1), plan.count * _line(plan)


def _line(plan: Plan) -> int:
    """Bytes of a line, about: of the last tile, whose seconds are some."""
    readouts, last = tuple(range(plan.readouts)), max(plan.blocks("test"), plan.blocks("train")) - 1
    tile = Tile("train", last, last)
    return len(str(Line(tile, readouts, (DIGEST,) * plan.readouts, None, 1.234567, 1234567890.123))) + 1


def computing(plan: Plan, seconds: float, writers: int = 1) -> Traffic:
    """What computing a plan into a new store asks for, in so many seconds by so many processes at once.

    GET and LIST, and what comes down, are at most; making the store and opening it are some 60 requests more
    for each process.
    """
    joins = plan.count // SEGMENT + (plan.count % SEGMENT > 1) + writers - 1
    others = (writers - 1) * plan.count  # lines that each reads of all the others
    _, lines = journals(plan, writers)
    return Traffic(
        put=plan.count * (plan.readouts + 1) + joins + int(writers * seconds / BEAT),
        get=others,
        head=2 * plan.count,
        list=int(writers * seconds / REFRESH),
        delete=joins,
        up=plan.bytes + 2 * lines,
        down=others * _line(plan),
    )


def reading(plan: Plan) -> Traffic:
    """What reading every matrix of a plan once asks for."""
    return Traffic(get=plan.count * plan.readouts, down=plan.bytes)


def iteration(plan: Plan) -> Traffic:
    """What one pass over the training matrix of one readout and draw asks for."""
    one = Plan(plan.n_train // plan.draws, 0, plan.tile, 1)
    return Traffic(get=one.count, down=one.bytes)
