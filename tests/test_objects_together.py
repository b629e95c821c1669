# ruff: noqa: F811 (fixtures)
"""Processes that create, enlarge and fill an object store at the same time, some of them killed."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from toy_store import PLAN, block_of, bucket, direct, fill, front, made, server, whole  # noqa: F401

from cntk_bench.errors import UserError
from cntk_bench.grams import chunks, claims, image_facts, segments, store
from cntk_bench.grams.lines import Line
from cntk_bench.grams.progress import Progress
from cntk_bench.grams.segments import Logs, Segments
from cntk_bench.system import bucket as buckets
from cntk_bench.system.lock import Held

pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("obstore", reason="obstore is not installed: pip install 'cntk-bench[cluster]'")

SEGMENT = 8  # lines of a segment
LARGER = replace(PLAN, n_train=14)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Signs of life appear and expire quickly."""
    for name, seconds in {"BEAT": 0.2, "LEASE": 2.0, "PATIENCE": 0.5, "PAUSE": 0.2}.items():
        monkeypatch.setattr(claims, name, seconds)
    monkeypatch.setattr(segments, "SEGMENT", SEGMENT)
    claims._warned.clear()


def names(bucket, under=""):
    return sorted(one.name for one in bucket.list(under))


def test_many_make_a_store_at_once_and_one_does(bucket):
    with ThreadPoolExecutor(4) as pool:
        made_there = list(pool.map(lambda _: made(bucket), range(4)))
    assert {grams.plan for grams in made_there} == {PLAN} and names(bucket, "lock") == []
    fill(made_there[0])
    whole(bucket)


def test_making_that_was_interrupted_is_done_again(bucket):
    made(bucket)
    bucket.delete(["zarr.json", "y_test/zarr.json"])
    with pytest.raises(UserError, match="no Gram store at s3://"):
        store.open(bucket)
    fill(made(bucket))
    whole(bucket)


def test_tiles_without_a_store_are_not_taken_for_its_own(bucket):
    fill(made(bucket))
    bucket.delete(["zarr.json"])
    with pytest.raises(
        UserError, match="holds tiles without a store .*remove them, or use another compute.store"
    ):
        made(bucket)


def test_who_is_alive_keeps_the_lock(bucket):
    grams = made(bucket)
    with grams.alone():
        with pytest.raises(
            Held, match=r"another run \(process \d+ on .*is changing s3://.*wait for it to end"
        ):
            made(bucket, LARGER)
        with pytest.raises(Held, match="is changing"), store.open(bucket).shared():
            pass
        assert names(bucket, "writers") == []
    made(bucket, LARGER)


def killed(bucket, number=7):
    """Put the lock that a killed process leaves behind."""
    words = {"holder": f"process {number} on elsewhere", "token": "another", "beat": 3, "time": 0.0}
    bucket.put("lock", json.dumps(words).encode())


def test_a_lock_whose_holder_was_killed_is_taken(bucket, caplog, faults):
    faults("who holds the lock of a store among objects is killed")
    grams = made(bucket)
    killed(bucket)
    fill(grams)  # the lock does not keep anybody from computing
    with grams.alone():
        grams.discard(PLAN.tiles()[0])
        grams.write(PLAN.tiles()[0], block_of(PLAN.tiles()[0]))
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("process 7 on elsewhere gave no sign of life for 2 seconds: the lock of s3://")
    whole(bucket)
    assert names(bucket, "lock") == []


def test_of_two_who_take_a_dead_lock_one_gets_it(bucket):
    grams, inside = made(bucket), []
    killed(bucket)

    def hold(_):
        try:
            with store.open(bucket).alone():
                inside.append(1)
                assert len(inside) == 1
                time.sleep(1)
                inside.clear()
            return True
        except Held:
            return False

    with ThreadPoolExecutor(3) as pool:
        assert True in list(pool.map(hold, range(3)))
    fill(grams)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"holder": "\\u001b[31mX"}'])
def test_a_lock_that_says_nonsense(bucket, content, caplog):
    grams = made(bucket)
    bucket.put("lock", content)
    with grams.alone():
        pass
    assert "one that does not say which gave no sign" in caplog.text


def test_who_lost_the_lock_ends(bucket, faults):
    faults("who holds the lock of a store among objects is stopped, and goes on")
    grams = made(bucket)
    with grams.alone():
        killed(bucket, 8)  # that process is alive, and took us for dead
        end = time.monotonic() + 60
        while True:
            try:
                grams.discard(PLAN.tiles()[0])
            except UserError as error:
                assert "another process took the lock of s3://" in str(error)
                break
            assert time.monotonic() < end
            time.sleep(0.05)
    assert b"process 8" in bucket.get("lock")[0]  # the lock is not ours to remove


def test_who_lost_the_lock_does_not_write_the_description(bucket, monkeypatch):
    """One that was suspended while it grew a store, and another took the lock and grew it meanwhile."""
    made(bucket)
    write, others = image_facts.write, []

    def suspended(*arguments):
        there = json.loads(bucket.get("zarr.json")[0])
        there["attributes"]["about"] = "another process was here"
        others.append(json.dumps(there).encode())
        bucket.put("zarr.json", others[0])
        write(*arguments)

    monkeypatch.setattr(image_facts, "write", suspended)
    with pytest.raises(
        UserError, match="was changed by another process meanwhile: run the same command again"
    ):
        made(bucket, LARGER)
    assert bucket.get("zarr.json")[0] == others[0]


def test_a_damaged_chunk_at_the_edge_is_written_again_after_growth_was_interrupted(bucket):
    """Of a chunk written in part, Zarr would first read the rest."""
    plan = replace(PLAN, n_train=10)
    grams = made(bucket, plan)
    fill(grams)
    grams.chunks.resize(LARGER)
    tile = plan.tiles()[-1]
    bucket.put(chunks.name(tile, 0), b"damaged")
    again = store.open(bucket)
    with again.alone():
        again.discard(tile)
        again.write(tile, block_of(tile, plan))
    whole(bucket)


def test_a_server_without_conditions_is_told_of(front, bucket, caplog):
    front.fault = lambda *_: {"if-none-match", "if-match"}
    fill(made(bucket))
    whole(bucket)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "has no conditional writes: make sure that no other process" in said[0]
    front.fault = lambda method, path, _: 501 if path.endswith("/lock") and method == "PUT" else None
    made(bucket, LARGER)


def test_a_store_does_not_grow_while_others_compute(bucket):
    grams = made(bucket)
    with grams.shared():
        grams.write(PLAN.tiles()[0], block_of(PLAN.tiles()[0]))
        assert len(grams.writers()) == 1
        with pytest.raises(Held, match="other processes .* compute into s3://.*wait for them to end"):
            made(bucket, LARGER)
        grams.write(PLAN.tiles()[1], block_of(PLAN.tiles()[1]))
    assert grams.writers() == [] and names(bucket, "writers") == []
    assert made(bucket, LARGER).progress.done() == PLAN.tiles()[:2]


def test_it_grows_once_a_killed_writer_gives_no_sign(bucket, faults):
    faults("a store among objects grows after a writer was killed")
    made(bucket)
    bucket.put("writers/elsewhere-7-abc", b"4")
    assert made(bucket, LARGER).plan == LARGER
    assert names(bucket, "writers") == []


def test_an_interrupted_growth_is_only_a_larger_array(front, bucket, monkeypatch):
    """zarr.json, which decides the store's size, is written last."""
    grams = made(bucket)
    fill(grams)
    monkeypatch.setattr(buckets, "RETRIES", 1)
    last = f"/{bucket.prefix}/zarr.json"
    front.fault = lambda method, path, _: 503 if method == "PUT" and path.endswith(last) else None
    with pytest.raises(UserError, match="cannot be used now"):
        made(bucket, LARGER)
    assert front.counts[503] and store.open(bucket).plan == PLAN
    whole(bucket)
    front.fault = lambda *_: None
    again = made(bucket, LARGER)
    fill(again, again.progress.missing())
    whole(bucket)


def test_a_writer_ends_where_the_store_has_changed(bucket, monkeypatch, faults):
    """The writer was stopped for so long that others took it for dead."""
    faults("a writer to a store among objects is stopped while others make it larger")
    monkeypatch.setattr(claims, "_require_no_writers", lambda bucket: None)
    grams, (first, *others) = made(bucket), PLAN.tiles()
    with grams.shared():
        grams.write(first, block_of(first))
        made(bucket, LARGER)
        with pytest.raises(
            UserError, match="was made larger, removed or replaced.*what was finished in it is kept"
        ):
            grams.write(others[0], block_of(others[0]))
    again = made(bucket, LARGER)
    assert again.progress.done() == [first]
    fill(again, again.progress.missing())
    whole(bucket)


def test_lines_become_few_objects_of_which_each_is_read_once(bucket, monkeypatch):
    grams, reads = made(bucket), []
    journal = Segments(bucket, "one", bucket.tag("zarr.json"))
    follower, asked = Logs(bucket), bucket.get
    monkeypatch.setattr(bucket, "get", lambda name: (reads.append(name), asked(name))[1])
    line, count, seen = Line(PLAN.tiles()[0], (0, 1), (1, 2)), 4 * SEGMENT + 3, []
    for number in range(count):
        journal.append(line)
        if number % 5 == 4:
            seen += [len(found) for found in follower.more()]
    assert len(names(bucket, "journals")) == 4 + 3
    journal.close()
    assert len(names(bucket, "journals")) == 5
    seen += [len(found) for found in follower.more()]
    assert len(reads) == len(set(reads)) and count <= sum(seen) <= 2 * count
    assert [len(found) for found in Logs(bucket).more()] in ([SEGMENT] * 4 + [3], [3] + [SEGMENT] * 4)
    assert Progress(bucket, PLAN).done() == [line.tile] and grams.progress.done() == []


def test_a_line_that_vanishes_while_it_is_read_is_found_again(bucket, monkeypatch):
    """Its writer joins it with others in the meantime."""
    made(bucket)
    journal = Segments(bucket, "one", bucket.tag("zarr.json"))
    for tile in PLAN.tiles()[:5]:
        journal.append(Line(tile, (0, 1), (1, 2)))
    asked, joined = bucket.get, threading.Lock()

    def get(name):
        if joined.acquire(blocking=False):
            journal.close()
        return asked(name)

    monkeypatch.setattr(bucket, "get", get)
    assert Progress(bucket, PLAN).done() == PLAN.tiles()[:5]


def test_who_is_alive_is_told_by_new_signs_and_by_no_clock_of_ours(bucket, monkeypatch):
    """Signs of dead processes stay; only new signs count, whatever time it is here."""
    made(bucket)
    bucket.put("writers/elsewhere-7-abc", b"4")
    monkeypatch.setattr(claims, "LOOK", 1.5)
    assert claims.signs(bucket) == {"elsewhere-7-abc"} and claims.alive(bucket) == set()
    time.sleep(2)  # now the dead process's sign is older than LEASE
    with store.open(bucket).shared():
        (name,) = claims.alive(bucket)
        assert name != "elsewhere-7-abc"
        assert len(claims.signs(bucket)) == 2


def test_all_that_work_among_objects_begin_at_places_of_their_own(bucket):
    made(bucket)
    one, other = store.open(bucket), store.open(bucket)
    with one.shared():
        assert one.among() == (0, 1)
        with other.shared():
            assert sorted([one.among(), other.among()]) == [(0, 2), (1, 2)]
