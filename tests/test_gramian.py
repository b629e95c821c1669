"""gram, compute, verify and repair, with a backend of a few lines that counts its tiles."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time

import numpy as np
import pytest
import zarr

from cntk_bench.errors import UserError
from cntk_bench.executors.local import WAITING
from cntk_bench.grams import chunks, direct, growth, matrix
from cntk_bench.grams import compute as grams
from cntk_bench.grams import store as stores
from cntk_bench.grams import verify as verification
from cntk_bench.grams.compute import Job, Task
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.kernels import convolutional as reference
from cntk_bench.kernels.spec import Readout, Spec

READOUTS = (Readout("ntk", "v", 3), Readout("ntk", "gap", 4), Readout("nngp", "lap:1", 2))
X_TRAIN, X_TEST = (
    np.random.default_rng(s).normal(size=(n, 2, 3, 3)).astype("f4") for s, n in ((1, 11), (2, 5))
)
PLAN = Plan(11, 5, 3, len(READOUTS))
IMAGES = ImageFacts((np.arange(11) % 2, np.arange(5) % 2))


class Fake:
    """A backend whose kernels are powers of an inner product. It counts what it is asked for, and
    calls `hook` with the number of each tile."""

    name, source = "fake", "0"

    def __init__(self, hook=lambda number: None):
        self.hook, self.tiles, self.prepared = hook, 0, 0

    def prepare(self, images):
        assert images.dtype == np.float32 and images.flags.c_contiguous
        self.prepared += 1
        return images.reshape(len(images), -1)

    def tile(self, x, z, symmetric=False):
        assert (x is z) == symmetric
        self.tiles += 1
        self.hook(self.tiles)
        return np.stack([self.kernel(x, z, power) for power in range(1, len(READOUTS) + 1)])

    def start(self, x, z, symmetric=False):
        return lambda: self.tile(x, z, symmetric)

    def kernel(self, x, z, power):
        return ((x[:, None] * z).sum(-1) ** power).astype(np.float32)


class Exact(Fake):
    """The definition's numbers, rounded to float32."""

    def prepare(self, images):
        self.prepared += 1
        return images

    def tile(self, x, z, symmetric=False):
        self.tiles += 1
        return reference.gram(x, None if symmetric else z, readouts=READOUTS).astype(np.float32)


def compute(store, backend, x_train, x_test, progress=None):
    report = progress and (lambda task: progress(task.tile))
    grams.compute(Job(store, lambda spec: backend, x_train, x_test), report=report)


def repair(store, damaged, backend, x_train, x_test):
    grams.repair(Job(store, lambda spec: backend, x_train, x_test), list(damaged))


def compute_tiles(store, backend, tiles):
    """Compute only these tiles, in this order."""
    job = Job(store, lambda spec: backend, X_TRAIN, X_TEST)
    with store.shared(), job.worker() as start:
        for tile in tiles:
            start(Task(tile, (0, 1, 2)))().result()


def new_store(path, plan=PLAN):
    attributes = {"readouts": [str(r) for r in READOUTS]}
    return growth.ensure(path, plan, attributes, IMAGES)


def matrices(store):
    return [
        matrix.matrix(store, part, r, np.float32) for part in ("train", "test") for r in range(len(READOUTS))
    ]


def same(a, b):
    return all((p == q).all() for p, q in zip(matrices(a), matrices(b), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store of the fake's numbers, computed without interruption."""
    store = new_store(tmp_path_factory.mktemp("whole") / "s")
    compute(store, Fake(), X_TRAIN, X_TEST)
    return store


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    store = new_store(tmp_path_factory.mktemp("exact") / "s")
    compute(store, Exact(), X_TRAIN, X_TEST)
    return store.path


@pytest.fixture
def exact(computed, tmp_path):
    """A store of the definition's numbers."""
    return stores.open(shutil.copytree(computed, tmp_path / "exact"))


# gram


@pytest.mark.parametrize("z", [None, X_TEST])
def test_gram_is_the_reference(z):
    stored = direct.gram(X_TRAIN, z, readouts=READOUTS, backend="cpu")
    true = reference.gram(X_TRAIN, z, readouts=READOUTS)
    assert stored.dtype == np.float32 and stored.shape == true.shape
    np.testing.assert_allclose(stored, true, rtol=3e-6)


def test_gram_takes_lists_integers_and_strides():
    x = np.arange(2 * 2 * 3 * 3).reshape(2, 3, 3, 2) % 5
    expected = direct.gram(x.transpose(0, 3, 1, 2).astype("f4"), readouts=READOUTS, backend="cpu")
    assert (direct.gram(x.transpose(0, 3, 1, 2), readouts=READOUTS, backend="cpu") == expected).all()
    assert (direct.gram(x.transpose(0, 3, 1, 2).tolist(), readouts=READOUTS, backend="cpu") == expected).all()


def with_value(value, dtype="f4"):
    x = np.array(X_TRAIN, dtype)
    x[4, 1, 2, 0] = value
    return x


@pytest.mark.parametrize(
    "x, z, words",
    [
        (X_TRAIN[0], None, r"x has shape \(2, 3, 3\): give \(n, C, P, P\)"),
        (X_TRAIN.transpose(0, 2, 3, 1), None, r"x has shape \(11, 3, 3, 2\).* channels first"),
        (X_TRAIN[:0], None, r"x has shape \(0,"),
        (X_TRAIN[:, :0], None, r"x has shape \(11, 0,"),
        (X_TRAIN[..., :0, :0], None, r"x has shape"),
        (X_TRAIN * 1j, None, "x has dtype complex"),
        (X_TRAIN > 0, None, "x has dtype bool"),
        (np.array([["a"]]), None, "x has dtype <U1"),
        ([[1.0], [1.0, 2.0]], None, "x is not an array of images"),
        (with_value(np.nan), None, r"x is nan at \[4, 1, 2, 0\]"),
        (with_value(-np.inf), None, r"x is -inf at \[4, 1, 2, 0\]"),
        (with_value(1e300, "f8"), None, r"x is inf at \[4, 1, 2, 0\], as float32"),
        (X_TRAIN, X_TEST[:, :1], r"z has images of shape \(1, 3, 3\), the others have \(2, 3, 3\)"),
        (X_TRAIN, X_TEST[..., :2, :2], r"z has images of shape \(2, 2, 2\)"),
        (X_TRAIN, X_TEST * np.float32(np.nan), "z is nan"),
        (with_value(1e30), None, "row 4, column 4 is 9.*e.59, .*: scale the images down"),
    ],
)
def test_bad_images(x, z, words):
    with pytest.raises(UserError, match=words) as error:
        direct.gram(x, z, readouts=READOUTS, backend="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "readouts, words",
    [
        ([], "no readouts"),
        (READOUTS[:1] * 2, "listed twice"),
        (None, "readout None is not possible"),
        (["ntk-v-3"], "give a list of Readout"),
    ],
)
def test_bad_readouts(readouts, words):
    with pytest.raises(UserError, match=words):
        direct.gram(X_TRAIN, readouts=readouts, backend="cpu")


def test_one_readout_or_a_generator():
    lone, listed = (
        direct.gram(X_TRAIN[:2], readouts=r, backend="cpu") for r in (READOUTS[0], (r for r in READOUTS[:1]))
    )
    assert lone.shape == (1, 2, 2) and (lone == listed).all()


def test_unknown_backend():
    with pytest.raises(UserError, match="abacus"):
        direct.gram(X_TRAIN, readouts=READOUTS, backend="abacus")


def test_plan_of_a_spec():
    v, gap, lap = Readout("ntk", "v", 21), Readout("ntk", "gap", 4), Readout("nngp", "lap:1", 2)
    assert Spec((v,), 3, 32).work == 20 * 32**2
    assert Spec((v, lap), 3, 32).work == 20 * 5**2 * 32**2
    assert Spec((lap, gap), 3, 32).work == 3 * 32**4
    assert grams.make_plan(Spec((v, gap), 3, 32), 200, 500, "cpu") == Plan(200, 500, 32, 2)
    assert grams.make_plan(Spec((v, gap), 3, 32), 200, 500, "cpu", 7) == Plan(200, 500, 7, 2)


# compute


def test_the_store_is_the_whole_matrix(whole):
    x, z = (a.reshape(len(a), -1) for a in (X_TRAIN, X_TEST))
    for r in range(len(READOUTS)):
        assert (matrix.matrix(whole, "train", r, np.float32) == Fake().kernel(x, x, r + 1)).all()
        assert (matrix.matrix(whole, "test", r, np.float32) == Fake().kernel(z, x, r + 1)).all()


@pytest.mark.parametrize("tile", [1, 4, 100])
def test_the_tile_changes_no_bit(whole, tmp_path, tile):
    store = new_store(tmp_path / "s", Plan(11, 5, tile, 3))
    compute(store, Fake(), X_TRAIN, X_TEST)
    assert same(store, whole)


def test_the_order_changes_no_bit(whole, tmp_path):
    store, backend = new_store(tmp_path / "s"), Fake()
    order = np.random.default_rng(0).permutation(len(PLAN.tiles()))
    compute_tiles(store, backend, [PLAN.tiles()[index] for index in order])
    assert same(store, whole)


def test_progress_and_nothing_left_to_do(tmp_path):
    store, backend, seen = new_store(tmp_path / "s"), Fake(), []
    compute(store, backend, X_TRAIN, X_TEST, lambda tile: seen.append((tile, store.progress.has(tile))))
    assert seen == [(tile, True) for tile in PLAN.tiles()]
    assert backend.prepared < 1.5 * len(PLAN.tiles())  # fewer than two blocks of images per tile
    compute(store, backend, X_TRAIN, X_TEST, seen.append)
    assert backend.tiles == len(seen) == len(PLAN.tiles())


def test_writing_overlaps_with_computing(tmp_path, monkeypatch):
    """The third tile is computed although the first cannot be written yet."""
    computed = threading.Event()
    write = stores.Store.write

    def slow(self, *args):
        assert computed.wait(20)
        write(self, *args)

    monkeypatch.setattr(stores.Store, "write", slow)
    backend = Fake(hook=lambda number: computed.set() if number == 3 else None)
    store = new_store(tmp_path / "s")
    compute(store, backend, X_TRAIN, X_TEST)
    assert store.progress.missing() == []


def test_tiles_are_written_two_at_a_time_and_few_wait(tmp_path, monkeypatch):
    """If the disk is slower than the backend, the backend must wait before memory fills."""
    meeting, write, begun, written, most = threading.Barrier(2), stores.Store.write, [], [], []

    def slow(self, tile, *rest):
        begun.append(tile)
        if tile in begun[:2]:
            meeting.wait(20)  # BrokenBarrierError if no second writer comes
        time.sleep(0.002)
        write(self, tile, *rest)
        written.append(tile)

    monkeypatch.setattr(stores.Store, "write", slow)
    plan = Plan(11, 5, 2, 3)
    store = new_store(tmp_path / "s", plan)
    compute(store, Fake(lambda n: most.append(n - 1 - len(written))), X_TRAIN, X_TEST)
    assert store.progress.missing() == [] and grams.WRITING == 2
    assert grams.WRITING <= max(most) <= WAITING


def test_the_seconds_of_tiles_add_up_to_the_runs(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(grams, "perf_counter", lambda: clock[0])

    def work(number):
        clock[0] += number

    store = new_store(tmp_path / "s")
    compute(store, Fake(work), X_TRAIN, X_TEST)
    (log,) = (store.path / "journals").iterdir()
    seconds = sorted(json.loads(line)["seconds"] for line in filter(None, log.read_text().split("\n")))
    assert seconds == list(range(1, 1 + len(PLAN.tiles())))
    assert stores.open(store.path).progress.counts().seconds == sum(seconds)


def test_a_tile_is_started_before_the_one_before_it_is_ended(tmp_path):
    class Noting(Fake):
        def start(self, x, z, symmetric=False):
            number, end = self.tiles_started, super().start(x, z, symmetric)
            self.tiles_started += 1
            self.notes.append(("start", number))
            return lambda: (self.notes.append(("end", number)), end())[1]

    backend = Noting()
    backend.tiles_started, backend.notes = 0, []
    compute(new_store(tmp_path / "s"), backend, X_TRAIN, X_TEST)
    count = len(PLAN.tiles())
    assert backend.notes.index(("start", 1)) < backend.notes.index(("end", 0))
    assert all(
        backend.notes.index(("end", k)) < backend.notes.index(("start", k + 2)) for k in range(count - 2)
    )  # but never two ahead


def test_a_tile_that_cannot_be_started_loses_none_before_it(tmp_path):
    class Full(Fake):
        def start(self, x, z, symmetric=False):
            if self.prepared == 4:
                raise UserError("memory is full")
            return super().start(x, z, symmetric)

    store, backend = new_store(tmp_path / "s"), Full()
    with pytest.raises(UserError, match="memory is full"):
        compute(store, backend, X_TRAIN, X_TEST)
    assert backend.tiles == len(store.progress.done()) > 2


@pytest.mark.parametrize("wrong", ["train count", "test count", "shape", "nan"])
def test_images_that_do_not_fit_the_store(tmp_path, wrong):
    x, z, words = {
        "train count": (X_TRAIN[1:], X_TEST, "10 train images given, but the store is for 11"),
        "test count": (X_TRAIN, X_TEST[1:], "4 test images given"),
        "shape": (X_TRAIN, X_TEST[:, :1], "x_test has images of shape"),
        "nan": (with_value(np.nan), X_TEST, "x_train is nan at"),
    }[wrong]
    with pytest.raises(UserError, match=words):
        compute(new_store(tmp_path / "s"), Fake(), x, z)


def test_a_tile_that_is_not_finite_is_not_stored(tmp_path):
    store, huge = new_store(tmp_path / "s"), X_TRAIN.copy()
    huge[7] *= 1e25
    with np.errstate(over="ignore"), pytest.raises(UserError, match=r"tile train-2-0 is -?inf at .*scale"):
        compute(store, Fake(), huge, X_TEST)
    assert store.progress.missing() == PLAN.tiles()[3:]


# Interruptions lose nothing finished, repeat no work, and change no bit


@pytest.mark.parametrize("number", [1, 2, 5, len(PLAN.tiles())])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_exception_in_a_tile(whole, tmp_path, number, error):
    def fail(n):
        if n == number:
            raise error

    store, backend = new_store(tmp_path / "s"), Fake(fail)
    with pytest.raises(error):
        compute(store, backend, X_TRAIN, X_TEST)
    assert stores.open(store.path).progress.missing() == PLAN.tiles()[number - 1 :]
    backend = Fake()
    compute(store, backend, X_TRAIN, X_TEST)
    assert backend.tiles == len(PLAN.tiles()) - number + 1
    assert same(store, whole)


@pytest.fixture
def sigint():
    """Python's usual handler, even if tests run in the background, where SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.mark.parametrize("number", [4, len(PLAN.tiles())])
def test_sigint_finishes_the_tile_at_hand(tmp_path, sigint, number):
    store, backend = new_store(tmp_path / "s"), Fake(lambda n: n == number and sigint())
    with pytest.raises(KeyboardInterrupt):
        compute(store, backend, X_TRAIN, X_TEST)
    assert stores.open(store.path).progress.missing() == PLAN.tiles()[number:]


def test_a_second_sigint_acts_at_once(tmp_path, sigint):
    def twice(number):
        if number == 4:
            sigint()
            sigint()

    store = new_store(tmp_path / "s")
    with pytest.raises(KeyboardInterrupt):
        compute(store, Fake(twice), X_TRAIN, X_TEST)
    assert stores.open(store.path).progress.missing() == PLAN.tiles()[3:]


def test_an_ignored_sigint_stays_ignored(whole, tmp_path, sigint):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    store = new_store(tmp_path / "s")
    compute(store, Fake(lambda n: sigint()), X_TRAIN, X_TEST)
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is signal.SIG_IGN
    assert same(store, whole)


def test_compute_works_off_the_main_thread(whole, tmp_path):
    store = new_store(tmp_path / "s")
    thread = threading.Thread(target=compute, args=(store, Fake(), X_TRAIN, X_TEST))
    thread.start()
    thread.join()
    assert same(store, whole)


@pytest.mark.parametrize("step", range(1, 40, 3))
def test_a_write_that_fails_at_any_step(whole, tmp_path, monkeypatch, step):
    """From a certain chunk, flush or record on, the disk is full; later there is space again."""
    store, backend = new_store(tmp_path / "s"), Fake()
    with monkeypatch.context() as patch:
        module, count = sys.modules["zarr.storage._local"], iter(range(1, 10_000))

        def guard(function):
            def guarded(*args, **kwargs):
                if next(count) >= step:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return function(*args, **kwargs)

            return guarded

        patch.setattr(module, "_put", guard(module._put))
        patch.setattr(os, "fsync", guard(os.fsync))
        patch.setattr(os, "write", guard(os.write))
        with pytest.raises(UserError, match="no space left"):
            compute(store, backend, X_TRAIN, X_TEST)
    left = len(stores.open(store.path).progress.missing())
    backend = Fake()
    compute(store, backend, X_TRAIN, X_TEST)
    assert backend.tiles == left
    assert same(store, whole)


processes = multiprocessing.get_context("forkserver")  # forks children from a process that has imported these
processes.set_forkserver_preload(["cntk_bench.grams.compute", "cntk_bench.grams.store", "pytest"])


def child(path, pause, largest_file=resource.RLIM_INFINITY, told=None):
    """Compute slowly into the store at `path`, optionally with a limit on the size of files."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    try:
        compute(stores.open(path), Fake(lambda number: time.sleep(pause)), X_TRAIN, X_TEST)
    except UserError as error:
        told.send(str(error))


def recorded(path):
    """Tiles listed in the logs; lines torn by a kill are not JSON."""
    names = []
    for log in (path / "journals").glob("*"):
        for line in log.read_text().splitlines():
            try:
                names.append(json.loads(line)["tile"])
            except ValueError:
                pass
    return names


def test_ten_sigkills_and_the_same_bits(tmp_path):
    plan = Plan(11, 5, 1, 3)
    whole, store = new_store(tmp_path / "whole", plan), new_store(tmp_path / "killed", plan)
    compute(whole, Fake(), X_TRAIN, X_TEST)
    for _ in range(10):
        goal = len(recorded(store.path)) + 3
        process = processes.Process(target=child, args=(store.path, 0.002))
        process.start()
        while len(recorded(store.path)) < goal and process.is_alive():
            time.sleep(0.001)
        time.sleep(np.random.default_rng().uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it was killed before it could end
        assert len(recorded(store.path)) >= goal
    left, backend = len(stores.open(store.path).progress.missing()), Fake()
    assert 0 < left <= len(plan.tiles()) - 30
    store = stores.open(store.path)
    compute(store, backend, X_TRAIN, X_TEST)
    assert backend.tiles == left
    # No tile was computed twice.
    assert sorted(recorded(store.path)) == sorted(str(tile) for tile in plan.tiles())
    assert same(store, whole)
    assert verification.verify(store).ok


def test_a_full_disk_for_real(whole, tmp_path):
    """The operating system itself refuses to let a file grow, here the log."""
    store = new_store(tmp_path / "s")
    here, there = processes.Pipe()
    process = processes.Process(target=child, args=(store.path, 0, 1000, there))
    process.start()
    message = here.recv()
    process.join()
    assert process.exitcode == 0
    assert message.startswith("no space left to write") and "\n" not in message
    missing = stores.open(store.path).progress.missing()
    assert 0 < len(missing) < len(PLAN.tiles())
    compute(store, Fake(), X_TRAIN, X_TEST)
    assert same(store, whole)


# verify and repair


def array(store, part):
    return zarr.open_group(store.path, mode="r+")[part]


def forge(store, tile, change):
    """Put other numbers into a tile, with a record that matches them."""
    block = store.read(tile).copy()
    change(block)
    with store.alone():
        store.discard(tile)
        store.write(tile, block)


def check_and_repair(store, damaged, sample=0):
    """Verify finds exactly these tiles, repair computes only them, and then all is well."""
    found = verification.verify(store, X_TRAIN, X_TEST, sample=sample)
    assert set(found.damaged) == set(damaged) and not found.ok
    backend = Exact()
    repair(store, found.damaged, backend, X_TRAIN, X_TEST)
    assert backend.tiles == len(damaged)
    again = verification.verify(store, X_TRAIN, X_TEST, sample=10**6)
    assert again.ok and again.missing == 0
    return " ".join(found.damaged.values())


def test_a_sound_store(exact):
    calls = []
    found = verification.verify(exact, X_TRAIN, X_TEST, sample=10**6, progress=lambda: calls.append(1))
    assert found.ok and found.checked == len(PLAN.tiles()) and found.missing == 0
    assert len(found.entries) == 3 * PLAN.pairs == 3 * (66 + 55)
    places = {(e.tile.part, e.row, e.col, e.readout) for e in found.entries}
    assert len(places) == len(found.entries)
    for e in found.entries[::7]:
        x = X_TRAIN if e.tile.part == "train" else X_TEST
        assert e.exact == reference.pair(x[e.row], X_TRAIN[e.col], [e.readout])[0]
        assert e.stored == matrix.matrix(exact, e.tile.part, READOUTS.index(e.readout))[e.row, e.col]
    assert 0 < max(e.error for e in found.entries) < 1.2e-7
    assert len(calls) == len(PLAN.tiles()) + PLAN.pairs


def test_the_sample_is_seeded(exact):
    def places(**options):
        found = verification.verify(exact, X_TRAIN, X_TEST, **options)
        return [(str(e.tile), e.row, e.col) for e in found.entries]

    assert len(places(sample=5, seed=1)) == 5 * len(READOUTS)
    assert places(sample=5, seed=1) == places(sample=5, seed=1) != places(sample=5, seed=2)
    assert places() == []


def test_flipped_byte_and_missing_chunk(exact):
    flipped, gone = exact.path / "train" / "c.2.3.1", exact.path / "test" / "c.0.1.0"
    flipped.write_bytes(b"\x55" + flipped.read_bytes()[1:])
    gone.unlink()
    text = check_and_repair(exact, [Tile("train", 3, 1), Tile("test", 1, 0)])
    assert "checksum" in text and "missing" in text


def test_altered_with_a_right_checksum(exact):
    array(exact, "train")[0, 4, 1] += 1
    assert "digest" in check_and_repair(exact, [Tile("train", 1, 0)])


def test_wrong_number_with_a_right_digest(exact):
    """The digest matches, so only float64 can tell: checking all entries finds it, checking none does not."""
    tile = Tile("test", 0, 2)
    forge(exact, tile, lambda block: block[:1, 1, 2].__imul__(1 + 2e-6))
    assert verification.verify(exact).ok
    text = check_and_repair(exact, [tile], sample=10**6)
    assert "ntk-v-3-all of row 1, column 8 is" in text and "relative error 2" in text


@pytest.mark.parametrize(("readout", "least"), [(0, 2e-6), (1, 2e-3), (2, 2e-6)])
def test_how_small_an_error_is_found(exact, readout, least):
    """V and NNGP are checked to 1e-6; the NTK of GAP and LAP, which float32 holds less well, to 1e-3."""
    tile = Tile("test", 1, 1)
    forge(exact, tile, lambda block: block[readout, :1, 2:3].__imul__(1 + least / 5))
    assert verification.verify(exact, X_TRAIN, X_TEST, sample=10**6).ok
    forge(exact, tile, lambda block: block[readout, :1, 2:3].__imul__(1 + least))
    found = verification.verify(exact, X_TRAIN, X_TEST, sample=10**6)
    assert list(found.damaged) == [tile] and str(READOUTS[readout]) in found.damaged[tile]


@pytest.mark.parametrize(
    "tile, change, words, damaged",
    [
        (Tile("train", 1, 1), lambda b: b[2, 0, 1:2].__imul__(1 + 1e-6), "not symmetric", "1-1"),
        (Tile("train", 2, 2), lambda b: np.einsum("rii->ri", b)[1].__imul__(-1), "negative on the", "2-2"),
        (Tile("train", 3, 3), lambda b: b[1, 0].fill(np.nan), "not finite", "3-3"),
        (Tile("train", 3, 0), lambda b: b[1].__imul__(100), "K_ij", "3-0 3-3 0-0"),
    ],
)
def test_numbers_that_no_kernel_has(exact, tile, change, words, damaged):
    forge(exact, tile, change)
    expected = [Tile("train", *map(int, name.split("-"))) for name in damaged.split()]
    assert words in check_and_repair(exact, expected)


def test_too_small_a_diagonal_is_found_and_mended(exact):
    forge(exact, Tile("train", 2, 2), lambda block: np.einsum("rii->ri", block).__imul__(1e-6))
    found = verification.verify(exact)
    assert Tile("train", 2, 2) in found.damaged
    repair(exact, found.damaged, Exact(), X_TRAIN, X_TEST)
    assert verification.verify(exact).ok


def test_unfinished_stores_verify_and_repair_only_what_is_there(tmp_path):
    store = new_store(tmp_path / "s")
    tiles = [Tile("train", 1, 0), Tile("test", 0, 3)]
    compute_tiles(store, Exact(), tiles)
    found = verification.verify(store, X_TRAIN, X_TEST, sample=10**6)
    assert found.ok and found.checked == 2 and found.missing == len(PLAN.tiles()) - 2
    assert len(found.entries) == 3 * (9 + 3 * 2)
    (store.path / "test" / "c.1.0.3").unlink()
    found = verification.verify(store, X_TRAIN, X_TEST, sample=10**6)
    assert list(found.damaged) == tiles[1:] and {e.tile for e in found.entries} == {tiles[0]}
    backend = Exact()
    repair(store, found.damaged, backend, X_TRAIN, X_TEST)
    assert backend.tiles == 1 and len(store.progress.done()) == 2


def test_interrupted_repair_leaves_the_tiles_missing(exact, sigint):
    damaged = [Tile("train", 1, 0), Tile("test", 1, 1)]
    with pytest.raises(KeyboardInterrupt):
        repair(exact, damaged, Fake(lambda n: sigint()), X_TRAIN, X_TEST)
    assert stores.open(exact.path).progress.missing() == damaged[1:]


def test_what_a_failed_repair_did_not_begin_is_as_it_was(exact):
    damaged = [Tile("train", 1, 0), Tile("test", 1, 1), Tile("train", 2, 1), Tile("train", 3, 3)]

    def fail(number):
        raise UserError("the device is gone: put it back")

    with pytest.raises(UserError, match="the device is gone"):
        repair(exact, damaged, Fake(fail), X_TRAIN, X_TEST)
    assert set(stores.open(exact.path).progress.missing()) == set(damaged[:2])  # the second one was started


@pytest.fixture
def elsewhere(monkeypatch):
    """An executor whose workers write to a store of their own; returns the tasks that it reported."""
    told = []

    def run(name, job, tasks, report, *_):
        for task in tasks:
            told.append(task)
            report(task)

    monkeypatch.setattr(grams.executors, "run", run)
    return told


def test_tiles_that_workers_stored_elsewhere_are_not_computed(tmp_path, elsewhere, monkeypatch):
    pauses = []
    monkeypatch.setattr(grams, "sleep", pauses.append)
    words = f"{PLAN.count} tiles that workers reported as stored are not in .*: use an output directory on a"
    with pytest.raises(UserError, match=words):
        compute(new_store(tmp_path / "s"), Fake(), X_TRAIN, X_TEST)
    assert len(elsewhere) == PLAN.count and 30 < sum(pauses) < 120


def test_tiles_of_others_may_be_seen_late(tmp_path, elsewhere, whole, monkeypatch):
    store = new_store(tmp_path / "s")

    def appear(_):
        for task in elsewhere:
            for readout in task.readouts:
                name = chunks.name(task.tile, readout)
                shutil.copyfile(whole.path / name, store.path / name)
        shutil.copytree(whole.path / "journals", store.path / "journals", dirs_exist_ok=True)

    monkeypatch.setattr(grams, "sleep", appear)
    compute(store, Fake(), X_TRAIN, X_TEST)
    assert same(store, whole)


def test_nothing_to_verify(tmp_path):
    found = verification.verify(new_store(tmp_path / "s"), X_TRAIN, X_TEST, sample=3)
    assert found.ok and found.checked == 0 and found.entries == ()


def test_numbers_under_the_names_of_others_are_damage(exact):
    """The names of the store's readouts were swapped, so its numbers belong to other kernels."""
    metadata = json.loads((exact.path / "zarr.json").read_text())
    metadata["attributes"]["readouts"].reverse()
    (exact.path / "zarr.json").write_text(json.dumps(metadata))
    swapped = stores.open(exact.path)
    assert swapped.readouts == tuple(map(str, READOUTS[::-1]))
    assert verification.verify(swapped, X_TRAIN, X_TEST, sample=10**6).damaged


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_tiles_that_cannot_be_read_now_are_not_damaged_and_not_repaired(exact, monkeypatch, code):
    module, calls = sys.modules["zarr.storage._local"], iter(range(10**6))
    get = module._get

    def some(*args, **kwargs):
        if next(calls) % 3 == 0:
            raise OSError(code, os.strerror(code))
        return get(*args, **kwargs)

    monkeypatch.setattr(module, "_get", some)
    found = verification.verify(exact, X_TRAIN, X_TEST, sample=3)
    assert found.unreadable and not found.damaged and not found.ok
    assert found.checked + len(found.unreadable) == len(exact.plan.tiles())
    assert all(os.strerror(code) in reason for reason in found.unreadable.values())
    monkeypatch.undo()
    assert verification.verify(exact, X_TRAIN, X_TEST, sample=3).ok


def test_cancelling_terms_are_judged_by_their_size():
    """Between images of opposite sign, the NTK's terms K + (k0 / 9) T cancel, but their errors do not."""
    x, z = X_TRAIN[0], 0.8 * X_TRAIN[1] - 0.6 * X_TRAIN[0]
    readout, plan, tile = Readout("ntk", "v", 2), Plan(1, 1, 1, 1), Tile("test", 0, 0)
    exact, K = reference.pair(x, z, [readout, Readout("nngp", "v", 2)])
    assert 0 < exact < 0.6 * K
    vx, vz = (reference.box2((image.astype("f8") ** 2).sum(0)) for image in (x, z))
    uncorrelated = np.sqrt(vx * vz).sum() / (9 * np.pi)  # K if no pixels were correlated
    assert K < uncorrelated
    (entry,) = verification._compare(plan, tile, 0, 0, [readout], [exact + 1e-7 * uncorrelated], x, z)
    assert entry.error == pytest.approx(1e-7, rel=1e-6)


def test_black_images_have_zero_kernels():
    black, plan, tile = np.zeros((2, 3, 3), "f4"), Plan(1, 1, 1, 3), Tile("test", 0, 0)
    entries = verification._compare(plan, tile, 0, 0, READOUTS, [0.0, 1e-30, 0.0], X_TRAIN[0], black)
    assert [e.error for e in entries] == [0, np.inf, 0]
    assert [e.ok for e in entries] == [True, False, True]
