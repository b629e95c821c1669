"""The Gram matrices on disk: a Zarr v3 group that survives interruption at any moment.

    PATH/zarr.json      the group; its attributes are the fingerprint of what is computed
    PATH/train, test    float32 (readouts, n_train | n_test, n_train), fill NaN, checksummed;
                        one chunk per tile and readout; of train only the tiles with row >= col
    PATH/y_train, y_test           labels, so that solving needs no data set
    PATH/train_index, test_index   the images used, by their place in the data set
    PATH/tiles.jsonl    the log of finished tiles (`journal`)
    PATH/lock           held by the one process that writes

A readout is found by its name among the attributes' `readouts`, never by the place that somebody
expects it in.

A tile is done when the log says so, never because its chunks are there. Its line, with a digest
of every readout's numbers, is appended and flushed to the disk only after the chunks are:
a SIGKILL or a power cut loses the tile being written and nothing else. A chunk that a lying disk
or a later accident damages fails its digest whenever it is read.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams import journal
from cntk_bench.grams.journal import Done
from cntk_bench.grams.tiles import Plan, Tile
from cntk_bench.system import lock
from cntk_bench.system.files import PARTIAL, flush, is_plain, read_plain, writing
from cntk_bench.system.libraries import hidden_if_broken
from cntk_bench.text import one_line, short

with hidden_if_broken("cupy"):
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

log = logging.getLogger(__name__)

FORMAT = 1
# Something else has the name of a chunk: that chunk is lost, and writing it again mends it.
NO_CHUNK = (errno.ENOTDIR, errno.ELOOP)
LABELS = ("y_train", "y_test")
INDICES = ("train_index", "test_index")


class Unreadable(UserError):
    """The operating system would not let numbers be read now; that says nothing about them."""


def create(
    path: str | Path, plan: Plan, attributes: dict, labels: Sequence, indices: Sequence | None = None
) -> "Store":
    """Make a new store: whole, or not at all.

    Parameters
    ----------
    path : path-like
        Must not exist, or be an empty directory. Chunks without a store, which a run leaves where it
        was moved away while it wrote, are set aside.
    plan : Plan
    attributes : dict
        JSON values that say what is computed: readouts (names), data, preprocess, dtype, backend,
        numerics. The plan's sizes and the format are added.
    labels : pair of (n_train,) and (n_test,) int arrays
    indices : pair of (n_train,) and (n_test,) int arrays, optional
        The place of every image in its data set.

    Raises
    ------
    UserError
        If the path is taken, or cannot be written.
    """
    path = Path(path)
    files: dict = {}
    group = zarr.create_group(MemoryStore(files), attributes=_fingerprint(plan, attributes))
    for part in ("train", "test"):
        group.create_array(
            part,
            shape=(plan.readouts, plan.size(part), plan.n_train),
            chunks=(1, plan.tile, plan.tile),
            dtype="float32",
            fill_value=np.nan,
            compressors=[Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},  # one directory to flush
        )
    _write_integers(group, LABELS, labels)
    if indices is not None:
        _write_integers(group, INDICES, indices)
    fresh = path.with_name(f".{path.name}-{uuid.uuid4().hex}{PARTIAL}")
    try:
        with writing(path):
            for name, content in files.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_bytes(content.to_bytes())
            for name in (*fresh.rglob("*"), fresh):
                flush(name)
            _set_stray_chunks_aside(path)
            fresh.rename(path)
            flush(path.parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return open(path)


def open(path: str | Path, expected: dict | None = None) -> "Store":
    """Open a store, whatever state an interruption left it in.

    Parameters
    ----------
    path : path-like
    expected : dict, optional
        Attributes that must be those of the store.

    Raises
    ------
    UserError
        If there is no store of this program and version, or one of something else.
    """
    path = Path(path)
    if not os.path.exists(path / "zarr.json"):
        raise UserError(f"there is no Gram store at {short(str(path))}: compute it first")
    try:
        attributes = json.loads(read_plain(path / "zarr.json"))["attributes"]
        version = attributes["cntk_bench_format"]
        store = Store(path, attributes) if version <= FORMAT else None
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot read the Gram store {short(str(path))} ({error.strerror or error}): make it readable"
        ) from None
    except Exception as error:  # whatever JSON and zarr make of a file that is not what it should be
        raise UserError(
            f"{short(str(path))} is not a readable Gram store ({one_line(_named(error), 100)}): "
            "use another output directory"
        ) from error
    if store is None:
        raise UserError(
            f"{short(str(path))} was written by a newer cntk-bench (store format {short(version)}, "
            f"this one reads {FORMAT}): upgrade cntk-bench"
        )
    if expected is not None:
        store.require(expected)
    return store


def ensure(
    path: str | Path, plan: Plan, attributes: dict, labels: Sequence, indices: Sequence | None = None
) -> "Store":
    """Open the store of exactly this computation, or make it where there is none.

    Parameters, errors: as `create` and `open`. Damaged labels are written anew.
    """
    path = Path(path)
    if not os.path.exists(path / "zarr.json"):
        try:
            return create(path, plan, attributes, labels, indices)
        except UserError:
            if not os.path.exists(path / "zarr.json"):  # else another process has just made it
                raise
    store = open(path, _fingerprint(plan, attributes))
    try:
        _ = store.labels
    except VerificationError:
        with store.lock(), writing(path):
            _write_integers(store.group, LABELS, labels)
    if indices is not None and store.indices is None:  # damaged, or made before stores kept them
        with store.lock(), writing(path):
            _write_integers(store.group, INDICES, indices)
    return store


class Store:
    """A store on disk; `create`, `open` and `ensure` make one.

    Attributes
    ----------
    path : Path
    attributes : dict
        The fingerprint.
    plan : Plan
    readouts : tuple of str
        Names of the readouts it holds, such as "ntk-gap-21-hidden".
    done : dict of Tile to Done
        The finished tiles, as the log had them when the store was opened or locked, and what
        this object wrote since.
    """

    def __init__(self, path: Path, attributes: dict):
        self.path = path
        # Stores made before there was a numerics version hold the bits of version 1.
        self.attributes = {"numerics": 1, **attributes}
        self.readouts = tuple(map(str, attributes["readouts"]))
        n_train, n_test, tile = (attributes[name] for name in ("n_train", "n_test", "tile"))
        try:
            self.plan = Plan(n_train, n_test, tile, len(self.readouts))
        except UserError as error:
            raise ValueError(str(error)) from None
        for part in ("train", "test"):
            if not is_plain(path / part / "zarr.json"):
                raise ValueError(f"{part}/zarr.json is not a plain file")
        self.group = zarr.open_group(path, mode="r+")
        self._arrays: dict[str, Any] = {part: self.group[part] for part in ("train", "test")}
        for part, array in self._arrays.items():
            shape = (self.plan.readouts, self.plan.size(part), self.plan.n_train)
            if array.shape != shape or array.chunks != (1, self.plan.tile, self.plan.tile):
                raise ValueError(f"{part} does not fit the plan")
            if (path / part).is_symlink():  # others may have put it there, to make us write elsewhere
                raise UserError(f"{short(str(path / part))} is a link: put the folder itself there")
        self._journal: journal.Journal | None = None  # open while this object holds the lock
        self.done = journal.read(path / "tiles.jsonl", self.plan)

    def require(self, expected: dict) -> None:
        """Refuse, with a UserError naming every difference, what is not in the attributes."""
        expected = json.loads(json.dumps(expected))
        differences = [
            f"{name} is {_show(self.attributes.get(name))} there, {_show(value)} here"
            for name, value in expected.items()
            if self.attributes.get(name) != value
        ]
        if differences:
            raise UserError(
                f"{short(str(self.path))} holds another computation: {'; '.join(differences)}: "
                "use another output directory, or the settings it was made with"
            )

    def index(self, readout: object) -> int:
        """The place of a readout in the arrays, found by its name.

        Parameters
        ----------
        readout : Readout or str
            Its name is what `str` gives. An integer is taken for a place in the store's own order.

        Raises
        ------
        UserError
            If the store does not hold it.
        """
        if isinstance(readout, int) and 0 <= readout < len(self.readouts):
            return readout
        if str(readout) not in self.readouts:
            raise UserError(
                f"{short(str(self.path))} does not hold the readout {short(str(readout))}, but "
                f"{short(', '.join(self.readouts))}: run `compute` for it in another output directory"
            )
        return self.readouts.index(str(readout))

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """(y_train, y_test), int64 (n_train,) and (n_test,); VerificationError if damaged."""
        labels = self._integers(LABELS)
        if labels is None:
            raise VerificationError(
                f"the labels in {short(str(self.path))} are damaged: run `compute` again to restore them"
            )
        return labels

    @property
    def indices(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(train_index, test_index), int64: the images' places in the data set; None if not known."""
        return self._integers(INDICES)

    def _integers(self, names):
        if not all(is_plain(self.path / name / file) for name in names for file in ("zarr.json", "c/0")):
            return None
        try:
            train, test = (self.group[name][:] for name in names)
        except OSError as error:
            raise Unreadable(
                f"{' and '.join(names)} of {short(str(self.path))} cannot be read now "
                f"({error.strerror or error}): mend that and run the same command again"
            ) from None
        except Exception:  # checksum, truncation, missing or broken metadata
            return None
        fits = train.shape == (self.plan.n_train,) and test.shape == (self.plan.n_test,)
        whole = fits and all((values >= 0).all() for values in (train, test))  # -1 fills a missing chunk
        return (train, test) if whole else None

    def missing(self) -> list[Tile]:
        """Tiles still to be computed, in computing order."""
        return [tile for tile in self.plan.tiles() if tile not in self.done]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to write; the kernel frees it even if the process is killed.

        The same object may take it again while it holds it.

        Raises
        ------
        UserError
            If another run holds it, or the store cannot be written.
        """
        if self._journal is not None:
            yield
            return
        with lock.held(self.path / "lock") as alone:
            if alone:
                with writing(self.path):
                    for leftover in self.path.glob(f"t*/*{PARTIAL}"):  # chunks of a killed run
                        leftover.unlink()
            with journal.opened(self.path / "tiles.jsonl") as self._journal:
                self.done = journal.read(self.path / "tiles.jsonl", self.plan)
                try:
                    yield
                finally:
                    self._journal = None

    def write(self, tile: Tile, block: np.ndarray, seconds: float = 0.0) -> None:
        """Store a tile, then log it as done; needs the lock. Threads may write different tiles at once.

        Parameters
        ----------
        tile : Tile
        block : array (readouts, h, w), float32
        seconds : float
            From the end of the tile before it to its own: all of them add up to the run's time.

        Raises
        ------
        UserError
            If the disk is full or fails, or the store is not where it was any more; the tile is then
            not done, all earlier ones are.
        """
        log = self._locked()
        block = np.ascontiguousarray(block, "<f4")
        if block.shape != tile.shape(self.plan):
            raise ValueError(f"{tile} has shape {tile.shape(self.plan)}, not {block.shape}")
        done = Done(tuple(map(_digest, block)), round(seconds, 6), round(time.time(), 3))
        with writing(self.path):
            log.require_place()
            chunks = [self._chunk(tile, readout) for readout in range(self.plan.readouts)]
            for chunk in chunks:
                if chunk.is_dir():  # nothing of ours, and it could not be replaced
                    chunk.rename(chunk.with_name(f"aside-{chunk.name}-{uuid.uuid4().hex}"))
            for readout, plane in enumerate(block):
                self._arrays[tile.part][readout, tile.rows(self.plan), tile.cols(self.plan)] = plane
            with ThreadPoolExecutor(8) as pool:  # flushes asked for together cost the disk about one
                list(pool.map(flush, chunks))
            flush(self.path / tile.part)
            log.append(tile, done)
        self.done[tile] = done

    def discard(self, tile: Tile) -> None:
        """Log that a tile is not done after all; needs the lock."""
        self._locked().append(tile, None)
        self.done.pop(tile, None)

    def _locked(self) -> journal.Journal:
        if self._journal is None:
            raise RuntimeError("writing needs the lock")
        return self._journal

    def _chunk(self, tile: Tile, readout: int) -> Path:
        return self.path / tile.part / f"c.{readout}.{tile.row}.{tile.col}"

    def inspect(self, tile: Tile, readouts: slice = slice(None)) -> tuple[np.ndarray | None, str | None]:
        """A done tile's numbers, float32 (readouts, h, w), or what is wrong with them.

        Raises
        ------
        Unreadable
            If the operating system will not let them be read now.
        """
        try:
            for readout in range(self.plan.readouts)[readouts]:
                if not is_plain(self._chunk(tile, readout)):
                    return None, "something else has the place of a chunk"
            block = self._arrays[tile.part][readouts, tile.rows(self.plan), tile.cols(self.plan)]
        except ValueError as error:  # a checksum, or a chunk of a wrong length
            return None, one_line(_named(error), 120)
        except OSError as error:
            if error.errno in NO_CHUNK:
                return None, one_line(error.strerror, 120)
            raise Unreadable(
                f"tile {tile} of {short(str(self.path))} cannot be read now ({error.strerror or error}): "
                "mend that and run the same command again"
            ) from error
        if self.done[tile].digests[readouts] != tuple(map(_digest, block)):
            return None, "missing or altered: the digest does not fit"
        return block, None

    def read(self, tile: Tile, readouts: slice = slice(None)) -> np.ndarray:
        """A done tile's numbers, checked against their digests.

        Parameters
        ----------
        tile : Tile
        readouts : slice
            Which readouts; all by default.

        Returns
        -------
        array (readouts, h, w), float32

        Raises
        ------
        UserError
            If the tile is not done, or cannot be read now (`Unreadable`).
        VerificationError
            If it is damaged.
        """
        if tile not in self.done:
            raise UserError(f"tile {tile} of {short(str(self.path))} is not computed yet: run `compute`")
        block, fault = self.inspect(tile, readouts)
        if block is None:
            raise VerificationError(
                f"tile {tile} of {short(str(self.path))} is damaged ({fault}): run `verify` with --repair"
            )
        return block

    def matrix(
        self, part: str, readout: object, dtype: Any = np.float64, triangle: str = "both"
    ) -> np.ndarray:
        """One whole matrix, assembled tile by tile: peak memory is the result and a few tiles.

        Parameters
        ----------
        part : {"train", "test"}
        readout : Readout or str
            As for `index`.
        dtype : dtype
        triangle : {"both", "lower"}
            Of "train": with "lower", what lies above the diagonal's tiles stays 0; the solve needs no more.

        Returns
        -------
        array (n_train | n_test, n_train)
            Rows of "test" are test images.

        Raises
        ------
        UserError, VerificationError
            If a tile is not done, cannot be read, or is damaged.
        """
        out = np.zeros((self.plan.size(part), self.plan.n_train), dtype)
        self._assemble(out, 0, self.plan.tiles(part), self.index(readout))
        for tile in self.plan.tiles(part) if (part, triangle) == ("train", "both") else ():
            rows, cols = tile.rows(self.plan), tile.cols(self.plan)
            out[cols, rows] = out[rows, cols].T
        return out

    def row_blocks(self, readout: object, dtype: Any = np.float64) -> Iterator[tuple[slice, np.ndarray]]:
        """The test x train matrix a block of test images at a time: (rows, array (h, n_train)).

        Parameters, errors: as for `matrix`.
        """
        index = self.index(readout)
        for row in range(self.plan.blocks("test")):
            rows = self.plan.block("test", row)
            out = np.empty((rows.stop - rows.start, self.plan.n_train), dtype)
            tiles = [Tile("test", row, col) for col in range(self.plan.blocks("train"))]
            self._assemble(out, rows.start, tiles, index)
            yield rows, out

    def _assemble(self, out, first, tiles, readout):
        """Read tiles, several at a time, into `out`, whose row 0 is row `first` of the whole."""
        missing = sum(tile not in self.done for tile in tiles)
        if missing:
            raise UserError(
                f"{missing} of {len(tiles)} {tiles[0].part} tiles of {short(str(self.path))} "
                "are not computed yet: run `compute`"
            )

        def place(tile):
            rows = tile.rows(self.plan)
            block = self.read(tile, slice(readout, readout + 1))[0]
            out[rows.start - first : rows.stop - first, tile.cols(self.plan)] = block

        with ThreadPoolExecutor() as pool:
            for _ in pool.map(place, tiles):
                pass


def _fingerprint(plan: Plan, attributes: dict) -> dict:
    if len(attributes["readouts"]) != plan.readouts:
        raise ValueError(f"{len(attributes['readouts'])} readouts do not fit the plan's {plan.readouts}")
    sizes = {"n_train": plan.n_train, "n_test": plan.n_test, "tile": plan.tile}
    return {"cntk_bench_format": FORMAT, **attributes, **sizes}


def _write_integers(group, names, pair):
    for name, values in zip(names, pair, strict=True):
        values = np.asarray(values, np.int64)
        group.create_array(name, data=values, fill_value=-1, compressors=[Crc32cCodec()], overwrite=True)


def _set_stray_chunks_aside(path: Path) -> None:
    """Move away a folder of chunks that belong to no store; anything else that is there stays."""
    found = [file for file in path.rglob("*") if not file.is_dir()] if path.is_dir() else []
    chunk = re.compile(r"(train|test)/c(\.\d+){3}(\..*)?")
    if found and all(chunk.fullmatch(str(file.relative_to(path))) for file in found):
        aside = path.with_name(f"{path.name}-stray-{uuid.uuid4().hex[:8]}")
        path.rename(aside)
        log.warning("%s held chunks without a store: they are in %s now", short(str(path)), aside.name)


def _digest(plane: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(plane).data).hexdigest()


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _show(value: object) -> str:
    return short(", ".join(map(str, value)) if isinstance(value, list) else str(value))
