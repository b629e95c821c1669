"""Journals of many writers, merged in any order; rounds of discarded tiles; which writers are alive."""

import itertools
import json
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cntk_bench.grams import growth, journal, lines, store, tasks
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.journal import Journal, writer_name, writers
from cntk_bench.grams.lines import Line
from cntk_bench.grams.progress import Progress
from cntk_bench.grams.tiles import Plan, Tile

PLAN = Plan(n_train=7, n_test=5, tile=3, readouts=2)
FIRST, LAST = Tile("train", 0, 0), Tile("train", 2, 1)


def written(folder, *files):
    """The progress read from journals with these entries; an entry may be any text."""
    (folder / "journals").mkdir(parents=True, exist_ok=True)
    for name, entries in zip("abcdefgh", files, strict=False):
        lines = [f"\n{one}\n" for one in entries]
        (folder / "journals" / f"{name}.jsonl").write_text("".join(lines))
    return Progress(folder, PLAN)


def done(tile, *digests, **more):
    return Line(tile, (0, 1), digests, **more)


def taken_back(tile, turn):
    return Line(tile, (), None, round=turn)


def state(progress):
    return {
        (str(tile), r): (progress.digests(tile, r), progress.shape(tile, r))
        for tile in PLAN.tiles()
        for r in range(2)
    } | {"disputed": progress.disputed, "rounds": [progress.round(tile) for tile in PLAN.tiles()]}


def test_the_order_of_journals_changes_nothing(tmp_path):
    files = [
        [done(FIRST, 1, 2), done(LAST, 3, 4, shape=(1, 3))],
        [taken_back(FIRST, 1), done(Tile("test", 1, 2), 7, 8, shape=(2, 1))],
        [done(FIRST, 5, 6, round=1)],
        [done(FIRST, 1, 2), Line(LAST, (1,), (4,), (1, 3))],
    ]
    states = [
        state(written(tmp_path / str(number), *order))
        for number, order in enumerate(itertools.permutations(files))
    ]
    assert all(one == states[0] for one in states)
    assert states[0]["train-0-0", 0] == ({5}, (3, 3)) and states[0]["disputed"] == set()
    assert states[0]["train-2-1", 1] == ({4}, (1, 3))


LINES = st.builds(
    lambda tile, readouts, digests, turn, taken, shape, machine: (
        taken_back(tile, turn + 1)
        if digests is None
        else Line(tile, readouts, digests[: len(readouts)], shape, 0.5, 0.0, turn, taken, machine)
    ),
    st.sampled_from(PLAN.tiles()[:4]),
    st.sampled_from([(0, 1), (1, 0), (0,), (1,)]),
    st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from([None, None, (2, 3), (2, 2), (1, 3)]),
    st.sampled_from(["", "", "a"]),
)


def told(lines, tile, readout):
    """By definition, what lines say of a tile and readout: {(digest, origin, taken)}, and the shape."""
    mine = [line for line in lines if line.tile == tile]
    turn = max((line.round for line in mine), default=0)
    said = [line for line in mine if line.round == turn and readout in line.readouts]
    shape = max((line.shape or (3, 3) for line in said), default=(3, 3))
    largest = [line for line in said if (line.shape or (3, 3)) == shape]
    return {
        (one.digests[one.readouts.index(readout)], (one.readouts, one.machine), one.taken) for one in largest
    }, shape


@given(st.lists(LINES, max_size=14), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_any_lines_in_any_files_merge_alike(tmp_path_factory, lines, order):
    """Reading lines one by one, all at once, or from several files gives the same, in any order."""
    folder = tmp_path_factory.mktemp("p")
    shuffled = random.Random(order.random()).sample(lines, len(lines))
    slowly = written(folder / "none")
    for line in shuffled:
        slowly.enter(line)
    ways = [
        slowly,
        written(folder / "one", lines),
        written(folder / "many", *[shuffled[k::3] for k in range(3)]),
    ]
    for tile, readout in itertools.product(PLAN.tiles(), range(2)):
        said, shape = told(lines, tile, readout)
        computed = [one for one in said if not one[2]]
        disputed = any(a[1] == b[1] and a[0] != b[0] for a in computed for b in computed)
        for progress in ways:
            assert progress.digests(tile, readout) == {digest for digest, *_ in said}
            assert progress.shape(tile, readout) == shape
            assert ((tile, readout) in progress.disputed) == disputed

            assert progress.taken(tile, [readout]) == [bool(said) and not computed]
            assert progress.round(tile) == max((line.round for line in lines if line.tile == tile), default=0)


def test_two_writers_with_different_numbers_are_a_dispute(tmp_path):
    progress = written(tmp_path, [done(FIRST, 1, 2)], [done(FIRST, 1, 9)])
    assert progress.disputed == {(FIRST, 1)} and progress.digests(FIRST, 1) == {2, 9}


def test_a_dispute_is_seen_whatever_lies_between(tmp_path):
    """Neither numbers of other readouts nor taken ones hide a dispute."""
    lines = [
        done(FIRST, 1, 2),
        Line(FIRST, (1,), (5,)),
        done(FIRST, 1, 9),
        done(FIRST, 1, 2, taken=True),
        done(FIRST, 7, 9, taken=True),
    ]
    for number, order in enumerate(itertools.permutations(lines)):
        progress = written(tmp_path / str(number), *([line] for line in order))
        assert progress.disputed == {(FIRST, 1)} and progress.digests(FIRST, 1) == {2, 5, 9}
        assert progress.digests(FIRST, 0) == {1, 7}


def test_numbers_computed_beside_other_readouts_are_none(tmp_path):
    progress = written(tmp_path, [done(FIRST, 1, 2)], [Line(FIRST, (1,), (9,))])
    assert progress.disputed == set() and progress.digests(FIRST, 1) == {2, 9}


def test_numbers_of_another_kind_of_machine_are_none(tmp_path):
    """Its last bits may differ, so both are right; two machines of one kind still have to agree."""
    here, there = done(FIRST, 1, 2, machine="a"), done(FIRST, 1, 9, machine="b")
    for number, order in enumerate(itertools.permutations([here, there, done(FIRST, 1, 7)])):
        progress = written(tmp_path / str(number), *([line] for line in order))
        assert progress.disputed == set() and progress.digests(FIRST, 1) == {2, 7, 9}
    progress = written(tmp_path / "alike", [here, there], [done(FIRST, 1, 3, machine="b")])
    assert progress.disputed == {(FIRST, 1)}
    (line,) = [f"{here}"]
    assert json.loads(line)["machine"] == "a" and "machine" not in json.loads(str(done(FIRST, 1, 2)))


@pytest.mark.parametrize("machine", [1, None, [], {}, True])
def test_a_machine_that_is_no_text_makes_a_line_invalid(tmp_path, machine):
    bad = json.loads(str(done(FIRST, 1, 2))) | {"machine": machine}
    progress = written(tmp_path, [json.dumps(bad), done(LAST, 3, 4, shape=(1, 3))])
    assert not progress.any(FIRST) and progress.any(LAST)


def test_numbers_of_more_images_supersede_those_of_fewer(tmp_path):
    small, large = done(LAST, 1, 2, shape=(1, 3)), done(LAST, 3, 4)
    for order in ([small, large], [large, small]):
        progress = written(tmp_path / str(order[0].digests), order)
        assert progress.digests(LAST, 0) == {3} and progress.shape(LAST, 0) == (3, 3)
        assert progress.disputed == set()


def test_only_what_is_new_is_read(tmp_path, monkeypatch):
    progress = written(tmp_path, [done(FIRST, 1, 2)])
    file, pieces, tail = tmp_path / "journals" / "a.jsonl", [], journal.tail

    def noting(path, first):
        for text, end in tail(path, first):
            pieces.append(text)
            yield text, end

    monkeypatch.setattr("cntk_bench.grams.progress.tail", noting)
    line = str(done(LAST, 3, 4))
    with file.open("a") as log:
        log.write(f"\n{line[:20]}")
    progress.refresh()
    assert not progress.has(LAST) and b"".join(pieces).strip() == b""
    with file.open("a") as log:
        log.write(f"{line[20:]}\n")
    progress.refresh()
    assert progress.has(LAST) and b"train-0-0" not in b"".join(pieces)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), -5.0, "1e400"])
def test_seconds_that_no_clock_can_have_said_count_as_none(tmp_path, seconds):
    line = str(done(FIRST, 1, 2, seconds=2.0))
    odd = json.dumps(json.loads(str(done(LAST, 1, 2))) | {"seconds": seconds})
    assert written(tmp_path, [line, odd]).counts().seconds == 2.0


def test_writers_that_are_alive_are_counted(tmp_path):
    gram = growth.create(
        tmp_path / "g", PLAN, {"readouts": ["a", "b"]}, ImageFacts((np.zeros(7, int), np.zeros(5, int)))
    )
    assert writers(gram.path) == []
    journals = [Journal(gram.path, writer_name()) for _ in range(3)]
    assert (
        writers(gram.path) == [] and not (gram.path / "journals").exists()
    )  # whoever writes nothing leaves no file
    for one in journals:
        one.append(done(FIRST, 1, 2))
    assert len(writers(gram.path)) == 3
    journals.pop().close()
    assert len(writers(gram.path)) == 2


@pytest.mark.parametrize("number", range(3))
def test_each_process_begins_elsewhere_and_does_all(tmp_path, number):
    labels = ImageFacts((np.zeros(7, int), np.zeros(5, int)))
    gram = growth.create(tmp_path / "g", PLAN, {"readouts": ["a", "b"]}, labels)
    found = list(tasks.pending(gram, (0, 1), gram.sizes, (number, 3)))
    assert sorted(map(str, (task.tile for task in found))) == sorted(map(str, PLAN.tiles()))
    first = PLAN.tiles().index(found[0].tile)
    assert number <= 3 * first / len(PLAN.tiles()) + 1 / 4 < number + 1


def test_what_others_finish_meanwhile_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "REFRESH", -1.0)
    labels = ImageFacts((np.zeros(7, int), np.zeros(5, int)))
    gram = growth.create(tmp_path / "g", PLAN, {"readouts": ["a", "b"]}, labels)
    other = store.open(gram.path)
    found = tasks.pending(gram, (0, 1), gram.sizes)
    assert next(found).tile == FIRST
    with other.shared():
        for tile in PLAN.tiles()[1:4]:
            shape = tile.shape(PLAN)
            other.write(tile, np.zeros(shape, np.float32))
        other.write(PLAN.tiles()[4], np.zeros((1, *PLAN.tiles()[4].shape(PLAN)[1:]), np.float32), 0.0, (1,))
    assert {task.tile: task.readouts for task in found} == {
        tile: (0,) if tile == PLAN.tiles()[4] else (0, 1) for tile in PLAN.tiles()[4:]
    }


KINDS = {
    "new": lambda tile, n: [done(tile, n, n + 1, seconds=0.5)],
    "taken": lambda tile, n: [done(tile, n, n + 1, taken=True)],
    "of a later round": lambda tile, n: [done(tile, n, n + 1, round=2, seconds=0.5)],
    "smaller": lambda tile, n: [done(tile, n, n + 1, shape=tile.shape(PLAN)[1:], seconds=0.5)],
    "taken back and computed again": lambda tile, n: [
        done(tile, 8, 9),
        taken_back(tile, 1),
        done(tile, n, n + 1, round=1, seconds=0.5),
    ],
    "of two writers": lambda tile, n: 2 * [done(tile, n, n + 1, seconds=0.5)],
    "of other readouts each": lambda tile, n: [
        Line(tile, (0,), (n,), seconds=0.5),
        Line(tile, (1,), (n + 1,)),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_lines_of_every_kind_are_merged_at_once(tmp_path, monkeypatch, kind):
    """Merged one by one, a million lines would take minutes."""
    parsed, merged = [], []
    at_once, merge = lines._at_once, Progress._merge_distinct
    monkeypatch.setattr(
        lines, "_at_once", lambda some, side: (parsed.append(len(some)), at_once(some, side))[1]
    )
    monkeypatch.setattr(
        Progress,
        "_merge_distinct",
        lambda self, some, *rest: (merged.append(len(some)), merge(self, some, *rest)),
    )
    every = [line for n, tile in enumerate(PLAN.tiles()) for line in KINDS[kind](tile, n + 1)]
    progress = written(tmp_path, every)
    assert progress.missing() == [] and progress.disputed == set()
    assert progress.counts().seconds == (0 if kind == "taken" else 0.5 * PLAN.count)
    assert [progress.digests(tile, 1) for tile in PLAN.tiles()] == [{n + 2} for n in range(PLAN.count)]
    # All 12 tiles in both parts take few calls.
    assert len(parsed) <= 4 and len(merged) <= 6 and min(merged) >= 6


def test_a_nonsensical_line_hides_none_beside_it(tmp_path):
    good = [done(tile, 4, 5) for tile in PLAN.tiles()]
    for odd in (
        '{"tile": "train-0-0"}',
        '{"tile": "train-0-0\\ntrain-1-0", "digests": ["%s"]}' % ("a" * 16),
        '{"tile": "train-00-0", "digests": ["%s"]}' % ("a" * 16),
        '{"tile": "train-0-0", "digests": ["-0000000000000a1"], "round": 3}',
        '{"tile": "train-0-0", "digests": [], "readouts": [], "round": 3}',
        '{"tile": "train-0-0", "digests": ["%s"], "readouts": [[1]], "round": 3}' % ("a" * 16),
        '{"tile": "train-0-0", "digests": ["%s"], "readouts": [1.0], "round": 3}' % ("a" * 16),
        '{"tile": "train-0-0", "digests": ["%s", "%s"], "readouts": [1, 1], "round": 3}' % (("a" * 16,) * 2),
        '{"tile": "train-0-0", "digests": ["%s"], "round": 1e400}' % ("a" * 16),
        '{"tile": "train-0-0", "digests": ["%s"], "round": -1}' % ("a" * 16),
        '{"tile": "train-0-0", "digests": ["%s"], "round": 3, "seconds": null}' % ("a" * 16),
        '{"tile": "train-0-0", "digests": {"a": 1}, "round": 3}',
        '{"tile": "train-0-0", "round": 3, "digests": ' + "[" * 800 + "1" + "]" * 800 + "}",
        '{"tile": "train-0-0", "digests": ["%s"], "readouts": [2], "round": 3}' % ("a" * 16),
        '{"tile": "train-7-0", "digests": ["%s"], "round": 3}' % ("a" * 16),
    ):
        progress = written(tmp_path, [*good[:5], odd, *good[5:]])
        assert progress.missing() == [], odd
        assert all(progress.digests(tile, 0) == {4} for tile in PLAN.tiles()), odd


@pytest.mark.parametrize("shape", [[99, 99], [0, 3], [3, 4], [3], 3, [2.0, 3], [True, 3], "33"])
def test_a_shape_that_no_tile_has_counts_as_none(tmp_path, shape):
    odd = json.dumps(json.loads(str(done(FIRST, 8, 9))) | {"shape": shape})
    for order in ([done(FIRST, 1, 2), odd], [odd, done(FIRST, 1, 2)]):
        progress = written(tmp_path, order)
        assert progress.digests(FIRST, 0) == {1} and progress.shape(FIRST, 0) == (3, 3)


def test_a_writer_and_a_reader_of_journals_take_turns(tmp_path, monkeypatch):
    """A thread enters its lines only after another has read the journals."""
    progress, reading, ended = written(tmp_path, [done(LAST, 3, 4)]), threading.Event(), threading.Event()

    def slowly(path, first):
        reading.set()
        ended.wait(30)
        return iter(())

    monkeypatch.setattr("cntk_bench.grams.progress.tail", slowly)
    reader = threading.Thread(target=progress.refresh)
    reader.start()
    assert reading.wait(30)
    writer = threading.Thread(target=progress.enter, args=(done(FIRST, 1, 2),))
    writer.start()
    writer.join(1)
    early = progress.has(FIRST)
    ended.set()
    writer.join()
    reader.join()
    assert not early and progress.has(FIRST)


def test_threads_that_write_and_read_at_once_lose_nothing(tmp_path):
    plan = Plan(n_train=60, n_test=0, tile=1, readouts=2)
    progress = Progress(tmp_path, plan)
    tiles = plan.tiles()

    def write(first):
        for number, tile in enumerate(tiles[first::4]):
            progress.enter(done(tile, 1, 2, seconds=1.0))
            if number % 20 == 0:
                progress.refresh()

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.missing() == [] and progress.counts().seconds == len(tiles)


def test_counts_are_those_of_the_tiles(tmp_path):
    """Counts for some images and readouts, against lists of tiles."""
    rng, lines_ = np.random.default_rng(0), []
    for tile in PLAN.tiles():
        for readout in range(2):
            if rng.random() < 0.7:
                shape = None if rng.random() < 0.6 else tile.shape(PLAN)[1:]
                lines_.append(Line(tile, (readout,), (5,), shape, 0.25, taken=bool(rng.random() < 0.5)))
    progress = written(tmp_path, lines_)
    taken = {(line.tile, line.readouts[0]) for line in lines_ if line.taken}
    of = [(None, 1), ((7, 5), 1), ((4, 5), 1), ((3, 0), 1), ((5, 2), 1), ((6, 5), 2), ((6, 5), 3), (None, 7)]
    for readouts, (sizes, draws) in itertools.product([[0], [1], [0, 1]], of):
        counts = progress.counts(readouts, sizes, draws)
        done_, missing = (getattr(progress, name)(readouts, sizes, draws) for name in ("done", "missing"))
        n_train, n_test = sizes or (7, 5)
        wanted = replace(PLAN, n_train=n_train, n_test=n_test, draws=draws).tiles()
        assert set(done_) | set(missing) == set(wanted) and counts.all_tiles == len(wanted)
        whole = [tile for tile in done_ if all((tile, r) in taken for r in readouts)]
        some = [tile for tile in done_ if tile not in whole and any((tile, r) in taken for r in readouts)]
        pairs = sum(tile.pairs(PLAN) for tile in done_)
        assert (counts.tiles, counts.all_tiles) == (len(done_), len(done_) + len(missing))
        assert (counts.pairs, counts.all_pairs) == (pairs, pairs + sum(tile.pairs(PLAN) for tile in missing))
        assert (counts.taken, counts.in_part) == (len(whole), len(some))
        mine = [tile for tile in done_ if tile not in whole]
        assert counts.computed == sum(tile.pairs(PLAN) for tile in mine)
        assert counts.seconds == sum(0.25 for line in lines_ if line.tile in mine and not line.taken)


def test_what_a_writer_reads_of_itself_is_not_counted_twice(tmp_path):
    labels = ImageFacts((np.zeros(7, int), np.zeros(5, int)))
    gram = growth.create(tmp_path / "g", PLAN, {"readouts": ["a", "b"]}, labels)
    with gram.shared():
        for tile in PLAN.tiles():
            gram.write(tile, np.zeros(tile.shape(PLAN), np.float32), 0.5, taken=tile == FIRST)
        before = gram.progress.counts()
        gram.progress.refresh()
    assert gram.progress.counts() == before == store.open(gram.path).progress.counts()
    assert (before.taken, before.seconds) == (1, 0.5 * (PLAN.count - 1))
    assert (before.pairs, before.computed) == (PLAN.pairs, PLAN.pairs - 6)  # the pairs of 3 images were taken
