"""Journals of many writers merged: in any order, with what each took back, and who is alive."""

import itertools
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cntk_bench.grams import compute, growth, journal, store
from cntk_bench.grams.images import Images
from cntk_bench.grams.journal import Entry, Journal, writers
from cntk_bench.grams.progress import Progress
from cntk_bench.grams.tiles import Plan, Tile

PLAN = Plan(n_train=7, n_test=5, tile=3, readouts=2)
FIRST, LAST = Tile("train", 0, 0), Tile("train", 2, 1)


def written(folder, *files):
    """Journals with these entries; a line may be given as text."""
    (folder / "journals").mkdir(parents=True, exist_ok=True)
    for name, entries in zip("abcdefgh", files, strict=False):
        lines = [f"\n{one if isinstance(one, str) else one.line()}\n" for one in entries]
        (folder / "journals" / f"{name}.jsonl").write_text("".join(lines))
    return Progress(folder, PLAN)


def done(tile, *digests, **more):
    return Entry(tile, (0, 1), digests, **more)


def taken_back(tile, turn):
    return Entry(tile, (), None, round=turn)


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
        [done(FIRST, 1, 2), Entry(LAST, (1,), (4,), (1, 3))],
    ]
    states = [
        state(written(tmp_path / str(number), *order))
        for number, order in enumerate(itertools.permutations(files))
    ]
    assert all(one == states[0] for one in states)
    assert states[0]["train-0-0", 0] == ({5}, (3, 3)) and states[0]["disputed"] == set()
    assert states[0]["train-2-1", 1] == ({4}, (1, 3))


ENTRIES = st.builds(
    lambda tile, digests, turn: (
        taken_back(tile, turn + 1) if digests is None else done(tile, *digests, round=turn)
    ),
    st.sampled_from(PLAN.tiles()),
    st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 2),
)


@given(st.lists(ENTRIES, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_any_entries_in_any_files_merge_alike(tmp_path_factory, entries, order):
    """What counts of each tile: its highest round, and all digests that were logged in it."""
    folder = tmp_path_factory.mktemp("p")
    one = written(folder / "one", entries)
    shuffled = random.Random(order.random()).sample(entries, len(entries))
    many = written(folder / "many", *[shuffled[k::3] for k in range(3)])
    for tile in PLAN.tiles():
        turn = max((e.round for e in entries if e.tile == tile), default=0)
        for readout in range(2):
            right = {e.digests[readout] for e in entries if e.tile == tile and e.round == turn and e.digests}
            assert one.digests(tile, readout) == many.digests(tile, readout) == right
            assert ((tile, readout) in one.disputed) == ((tile, readout) in many.disputed) == (len(right) > 1)


def test_two_writers_with_different_numbers_are_a_dispute(tmp_path):
    progress = written(tmp_path, [done(FIRST, 1, 2)], [done(FIRST, 1, 9)])
    assert progress.disputed == {(FIRST, 1)} and progress.digests(FIRST, 1) == {2, 9}


def test_numbers_computed_beside_other_readouts_are_none(tmp_path):
    progress = written(tmp_path, [done(FIRST, 1, 2)], [Entry(FIRST, (1,), (9,))])
    assert progress.disputed == set() and progress.digests(FIRST, 1) == {2, 9}


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
    line = done(LAST, 3, 4).line()
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
    line = done(FIRST, 1, 2, seconds=2.0).line()
    odd = json.dumps(json.loads(done(LAST, 1, 2).line()) | {"seconds": seconds})
    assert written(tmp_path, [line, odd]).seconds == 2.0


def test_writers_that_are_alive_are_counted(tmp_path):
    gram = growth.create(
        tmp_path / "g", PLAN, {"readouts": ["a", "b"]}, Images((np.zeros(7, int), np.zeros(5, int)))
    )
    assert writers(gram.path) == 0
    journals = [Journal(gram.path) for _ in range(3)]
    assert (
        writers(gram.path) == 0 and not (gram.path / "journals").exists()
    )  # who writes nothing leaves nothing
    for one in journals:
        one.append(done(FIRST, 1, 2))
    assert writers(gram.path) == 3
    journals.pop().close()
    assert writers(gram.path) == 2


@pytest.mark.parametrize("others", range(4))
def test_each_process_begins_elsewhere_and_does_all(tmp_path, others):
    labels = Images((np.zeros(7, int), np.zeros(5, int)))
    gram = growth.create(tmp_path / "g", PLAN, {"readouts": ["a", "b"]}, labels)
    tasks = list(compute.pending(gram, (0, 1), gram.sizes, others))
    assert sorted(map(str, (task.tile for task in tasks))) == sorted(map(str, PLAN.tiles()))
    assert tasks[0].tile == PLAN.tiles()[[0, 6, 3, 9][others]]


def test_what_others_finish_meanwhile_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "REFRESH", -1.0)
    labels = Images((np.zeros(7, int), np.zeros(5, int)))
    gram = growth.create(tmp_path / "g", PLAN, {"readouts": ["a", "b"]}, labels)
    other = store.open(gram.path)
    tasks = compute.pending(gram, (0, 1), gram.sizes, 0)
    assert next(tasks).tile == FIRST
    with other.shared():
        for tile in PLAN.tiles()[1:4]:
            shape = tile.shape(PLAN)
            other.write(tile, np.zeros(shape, np.float32))
        other.write(PLAN.tiles()[4], np.zeros((1, *PLAN.tiles()[4].shape(PLAN)[1:]), np.float32), 0.0, (1,))
    following = next(tasks)
    assert following == compute.Task(PLAN.tiles()[4], (0,))


def test_whole_tiles_that_are_new_are_merged_at_once(tmp_path, monkeypatch):
    """A million lines one by one would take minutes."""

    def refuse(*_):
        raise AssertionError("one by one")

    lines = [done(tile, number + 1, number + 2, seconds=0.5) for number, tile in enumerate(PLAN.tiles())]
    monkeypatch.setattr(Progress, "enter", refuse)
    progress = written(tmp_path, lines[:5], lines[5:])
    assert progress.missing() == [] and progress.seconds == 0.5 * PLAN.count
    assert [progress.digests(tile, 1) for tile in PLAN.tiles()] == [{n + 2} for n in range(PLAN.count)]


def test_what_a_writer_reads_of_itself_is_not_counted_twice(tmp_path):
    labels = Images((np.zeros(7, int), np.zeros(5, int)))
    gram = growth.create(tmp_path / "g", PLAN, {"readouts": ["a", "b"]}, labels)
    with gram.shared():
        for tile in PLAN.tiles():
            gram.write(tile, np.zeros(tile.shape(PLAN), np.float32), 0.5, taken=tile == FIRST)
        before = gram.progress.taken, gram.progress.seconds
        gram.progress.refresh()
    assert (gram.progress.taken, gram.progress.seconds) == before == (1, 0.5 * PLAN.count)
    again = store.open(gram.path).progress
    assert (again.taken, again.seconds) == before
