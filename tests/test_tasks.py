"""Which of a store's missing tiles are taken by processes that do not know of each other."""

import fcntl
import os
import random
from collections import Counter
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from cntk_bench.grams import growth, store, tasks
from cntk_bench.grams.flight import Flight, flight
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.lines import Line
from cntk_bench.grams.progress import Progress
from cntk_bench.grams.tiles import Plan

PLAN = Plan(n_train=20, n_test=9, tile=1, readouts=1)  # 210 training tiles and 180 test tiles


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(tasks, "REFRESH", -1.0)  # so progress is always read again


@pytest.fixture
def gram(tmp_path):
    labels = ImageFacts((np.zeros(20, int), np.zeros(9, int)))
    return growth.create(tmp_path / "g", PLAN, {"readouts": ["a"]}, labels)


def worked(folder, speeds, flying, seed):
    """How often each tile is done if processes begin together, each with `flying` tiles in flight."""
    dice, done = random.Random(seed), Counter()
    (folder / "journals").mkdir(exist_ok=True)
    walks = [
        tasks.pending(
            SimpleNamespace(plan=PLAN, progress=Progress(folder, PLAN)), (0,), (20, 9), (number, len(speeds)),
            flight=Flight(folder / "flying", PLAN),
        )
        for number in range(len(speeds))
    ]  # fmt: skip
    begun = [[task.tile for task in islice(walk, flying)] for walk in walks]
    while any(begun):
        who = dice.choices(
            range(len(speeds)), [speed * bool(b) for speed, b in zip(speeds, begun, strict=True)]
        )[0]
        tile = begun[who].pop(0)
        done[tile] += 1
        with open(folder / "journals" / f"{who}.jsonl", "a") as file:
            file.write(f"\n{Line(tile, (0,), (1,))}\n")
        begun[who] += [task.tile for task in islice(walks[who], 1)]
    return done


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("speeds", [(1, 1), (1, 1, 1), (10, 1), (1, 3, 0.2)])
@pytest.mark.parametrize("flying", [1, 6])
def test_nothing_is_done_twice_but_what_is_in_flight(tmp_path, quick, monkeypatch, speeds, flying, seed):
    monkeypatch.setattr(tasks, "_dice", random.Random(seed))
    done = worked(tmp_path, speeds, flying, seed)
    assert set(done) == set(PLAN.tiles())
    # At the end, each process may begin any tile that another one has in flight.
    assert sum(done.values()) - len(done) <= flying * len(speeds) * (len(speeds) - 1)


def test_what_others_compute_is_taken_last(gram):
    other = Flight(gram.path / "flying", PLAN)
    begun = PLAN.tiles()[3:6]
    other.tell(begun)
    with flight(gram.path, PLAN) as ours:
        order = [task.tile for task in tasks.pending(gram, (0,), gram.sizes, flight=ours)]
        assert sorted(order[-3:], key=str) == begun and set(order) == set(PLAN.tiles())
    other.close()
    assert not (gram.path / "flying").exists()


@pytest.mark.parametrize("text", [b"train 3", b"train 3\nen", b"\xff\nend", b"train x\ntest -1\nend", b""])
def test_a_word_that_is_not_whole_counts_for_nothing(tmp_path, text):
    handle = os.open(tmp_path / "host-1-0123abcd", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.write(handle, text)
    assert not any(Flight(tmp_path, PLAN).others().values())
    os.pwrite(handle, b"train 3\ntest 5\nend" + text, 0)
    os.ftruncate(handle, 18)
    assert Flight(tmp_path, PLAN).others() == {"train": [3], "test": [5]}
    os.close(handle)
    assert not any(Flight(tmp_path, PLAN).others().values()) and not list(tmp_path.iterdir())


def test_nothing_of_others_is_removed_or_written_to(tmp_path):
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "flying"
    elsewhere.mkdir()
    (elsewhere / "host-1-0123abcd").write_text("train 3\nend")
    link.symlink_to(elsewhere)
    linked = Flight(link, PLAN)
    linked.tell(PLAN.tiles()[:1])
    assert not any(linked.others().values())
    linked.close()
    (elsewhere / "notes").write_text("train 3\nend")
    assert not any(Flight(elsewhere, PLAN).others().values())
    assert [file.name for file in elsewhere.iterdir()] == ["notes"]


def test_one_alone_goes_in_order_and_leaves_no_sign_of_itself(gram):
    with gram.shared():
        assert gram.among() == (0, 1) and gram.writers() == []
        assert [task.tile for task in tasks.pending(gram, (0,), gram.sizes)] == PLAN.tiles()
    assert list((gram.path / "journals").iterdir()) == []


def test_all_that_work_are_seen_before_they_have_finished_anything(gram):
    first, second, third = (store.open(gram.path) for _ in range(3))
    with first.shared(), second.shared():
        assert sorted([first.among(), second.among()]) == [(0, 2), (1, 2)]
        with third.shared():
            assert sorted(one.among() for one in (first, second, third)) == [(0, 3), (1, 3), (2, 3)]
        first.write(PLAN.tiles()[0], np.zeros((1, 1, 1), np.float32))
        assert second.among()[1] == 2 and len(second.writers()) == 1
