"""The Gram matrices on disk: a Zarr v3 group that survives interruption at any moment.

    PATH/zarr.json      the group; its attributes are the fingerprint of what is computed
    PATH/train, test    float32 (readouts, n_train | n_test, n_train), fill NaN, checksummed;
                        one chunk a tile and readout; of train only the tiles with row >= col
    PATH/y_train, y_test   labels, so that solving needs no data set
    PATH/tiles.jsonl    the log of finished tiles, one JSON line each; a later line supersedes
    PATH/lock           held by the one process that writes

A tile is done when the log says so, never because its chunks are there. Its line, with a digest
of every readout's numbers, is appended and flushed to the disk only after the chunks are:
a SIGKILL or a power cut loses the tile being written and nothing else. A chunk that a lying disk
or a later accident damages fails its digest whenever it is read. A line torn by an interruption
is not JSON and is passed over.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from cntk_bench.errors import UserError, VerificationError
from cntk_bench.tiles import Plan, Tile

FORMAT = 1
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Done:
    """A finished tile: a digest a readout, seconds since the tile before it, time of writing (Unix)."""

    digests: tuple[str, ...]
    seconds: float
    time: float


def create(path, plan: Plan, attributes: dict, labels) -> "Store":
    """Make a new store: whole, or not at all.

    Parameters
    ----------
    path : path
        Must not exist, or be an empty directory.
    plan : Plan
    attributes : dict
        JSON values that say what is computed: readouts (strings), data, preprocessing, dtype,
        backend, source. The plan's sizes and the format are added.
    labels : pair of (n_train,) and (n_test,) int arrays

    Raises
    ------
    UserError
        If the path is taken, or cannot be written.
    """
    path = Path(path)
    files = {}
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
    _write_labels(group, labels)
    fresh = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with _writing(path):
            for name, content in files.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_bytes(content.to_bytes())
            for name in (*fresh.rglob("*"), fresh):
                _flush(name)
            fresh.rename(path)
            _flush(path.parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return open(path)


def open(path, expected: dict | None = None) -> "Store":
    """Open a store, whatever state an interruption left it in.

    Parameters
    ----------
    path : path
    expected : dict, optional
        Attributes that must be those of the store.

    Raises
    ------
    UserError
        If there is no store of this program and version, or one of something else.
    """
    path = Path(path)
    if not os.path.exists(path / "zarr.json"):
        raise UserError(f"there is no Gram store at {path}: compute it first")
    try:
        attributes = json.loads((path / "zarr.json").read_bytes())["attributes"]
        version = attributes["cntk_bench_format"]
        store = Store(path, attributes) if version <= FORMAT else None
    except Exception as error:  # whatever JSON and zarr make of a file that is not what it should be
        raise UserError(
            f"{path} is not a readable Gram store ({_one_line(error)}): use another output directory"
        ) from error
    if store is None:
        raise UserError(
            f"{path} was written by a newer cntk-bench (store format {version}, this one reads {FORMAT}): "
            "upgrade cntk-bench"
        )
    if expected is not None:
        store.require(expected)
    return store


def ensure(path, plan: Plan, attributes: dict, labels) -> "Store":
    """Open the store of exactly this computation, or make it where there is none.

    Parameters, errors: as `create` and `open`. Damaged labels are written anew.
    """
    path = Path(path)
    if not os.path.exists(path / "zarr.json"):
        return create(path, plan, attributes, labels)
    store = open(path, _fingerprint(plan, attributes))
    try:
        _ = store.labels
    except VerificationError:
        with store.lock(), _writing(path):
            _write_labels(store.group, labels)
    return store


class Store:
    """A store on disk; `create`, `open` and `ensure` make one.

    Attributes
    ----------
    path : Path
    attributes : dict
        The fingerprint.
    plan : Plan
    done : dict of Tile to Done
        The finished tiles, as the log had them when the store was opened or locked, and what
        this object wrote since.
    """

    def __init__(self, path: Path, attributes: dict):
        self.path = path
        self.attributes = attributes
        sizes = (attributes[name] for name in ("n_train", "n_test", "tile"))
        self.plan = Plan(*sizes, len(attributes["readouts"]))
        self.group = zarr.open_group(path, mode="r+")
        self._arrays = {part: self.group[part] for part in ("train", "test")}
        for part, array in self._arrays.items():
            shape = (self.plan.readouts, self.plan.size(part), self.plan.n_train)
            if array.shape != shape or array.chunks != (1, self.plan.tile, self.plan.tile):
                raise ValueError(f"{part} does not fit the plan")
        self._tiles = {str(tile): tile for tile in self.plan.tiles()}
        self._log = None  # open while this object holds the lock
        self._logging = threading.Lock()
        self.done = self._read_log()

    def require(self, expected: dict):
        """Refuse, with a UserError naming every difference, what is not in the attributes."""
        expected = json.loads(json.dumps(expected))
        differences = [
            f"{name} is {_show(self.attributes.get(name))} there, {_show(value)} here"
            for name, value in expected.items()
            if self.attributes.get(name) != value
        ]
        if differences:
            raise UserError(
                f"{self.path} holds another computation: {'; '.join(differences)}: "
                "use another output directory, or the settings it was made with"
            )

    @property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """(y_train, y_test), int64 (n_train,) and (n_test,); VerificationError if damaged."""
        try:
            labels = tuple(self.group[name][:] for name in ("y_train", "y_test"))
            if labels[0].shape == (self.plan.n_train,) and labels[1].shape == (self.plan.n_test,):
                if all((y >= 0).all() for y in labels):  # -1 fills a missing chunk
                    return labels
        except Exception:  # checksum, truncation, missing or broken metadata
            pass
        raise VerificationError(f"the labels in {self.path} are damaged: run `compute` again to restore them")

    def missing(self) -> list[Tile]:
        """Tiles still to be computed, in computing order."""
        return [tile for tile in self.plan.tiles() if tile not in self.done]

    @contextmanager
    def lock(self):
        """Hold the right to write; the kernel frees it even if the process is killed.

        Raises
        ------
        UserError
            If another run holds it, or the store cannot be written.
        """
        with _writing(self.path):
            holder = (self.path / "lock").open("a+")
        with holder:
            with _writing(self.path):
                try:
                    fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder.seek(0)
                    raise UserError(
                        f"another run ({holder.read().strip() or 'starting'}) is writing {self.path}: "
                        "wait for it to end, or use another output directory"
                    ) from None
                holder.truncate(0)
                print(f"process {os.getpid()} on {socket.gethostname()}", file=holder, flush=True)
                for leftover in self.path.glob("*/*.partial"):  # chunks of a killed run
                    leftover.unlink()
                self._log = (self.path / "tiles.jsonl").open("ab", buffering=0)
            with self._log:
                self.done = self._read_log()
                try:
                    yield
                finally:
                    self._log = None

    def write(self, tile: Tile, block, seconds: float = 0.0):
        """Store a tile, then record it as done; needs the lock. Threads may write different tiles at once.

        Parameters
        ----------
        tile : Tile
        block : array (readouts, h, w), float32
        seconds : float
            From the end of the tile before it to its own: all of them add up to the run's time.

        Raises
        ------
        UserError
            If the disk is full or fails; the tile is then not done, all earlier ones are.
        """
        if self._log is None:
            raise RuntimeError("writing needs the lock")
        block = np.ascontiguousarray(block, "<f4")
        if block.shape != tile.shape(self.plan):
            raise ValueError(f"{tile} has shape {tile.shape(self.plan)}, not {block.shape}")
        record = Done(tuple(map(_digest, block)), round(seconds, 6), round(time.time(), 3))
        with _writing(self.path):
            for readout, plane in enumerate(block):
                self._arrays[tile.part][readout, tile.rows(self.plan), tile.cols(self.plan)] = plane
            chunks = [f"c.{readout}.{tile.row}.{tile.col}" for readout in range(self.plan.readouts)]
            with ThreadPoolExecutor(8) as pool:  # flushes asked for together cost the disk about one
                list(pool.map(_flush, [self.path / tile.part / chunk for chunk in chunks]))
            _flush(self.path / tile.part)
            self._append({"tile": str(tile), **vars(record)})
        self.done[tile] = record

    def discard(self, tile: Tile):
        """Record that a tile is not done after all; needs the lock."""
        with _writing(self.path):
            self._append({"tile": str(tile), "digests": None})
        self.done.pop(tile, None)

    def inspect(self, tile: Tile, readouts=slice(None)) -> tuple[np.ndarray | None, str | None]:
        """A done tile's numbers, float32 (readouts, h, w), or what is wrong with them."""
        try:
            block = self._arrays[tile.part][readouts, tile.rows(self.plan), tile.cols(self.plan)]
        except (ValueError, OSError) as error:  # a checksum, or the disk
            return None, _one_line(error)
        if self.done[tile].digests[readouts] != tuple(map(_digest, block)):
            return None, "missing or altered: the digest does not fit"
        return block, None

    def read(self, tile: Tile, readouts=slice(None)) -> np.ndarray:
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
            If the tile is not done.
        VerificationError
            If it is damaged.
        """
        if tile not in self.done:
            raise UserError(f"tile {tile} of {self.path} is not computed yet: run `compute`")
        block, fault = self.inspect(tile, readouts)
        if fault:
            raise VerificationError(
                f"tile {tile} of {self.path} is damaged ({fault}): run `verify` with --repair"
            )
        return block

    def matrix(self, part: str, readout: int, dtype=np.float64) -> np.ndarray:
        """One whole matrix, assembled tile by tile: peak memory is the result and a few tiles.

        Parameters
        ----------
        part : {"train", "test"}
        readout : int
            Index among the readouts.
        dtype : dtype

        Returns
        -------
        array (n_train | n_test, n_train)
            Rows of "test" are test images.

        Raises
        ------
        UserError, VerificationError
            If a tile is not done, or damaged.
        """
        out = np.zeros((self.plan.size(part), self.plan.n_train), dtype)
        self._assemble(out, 0, self.plan.tiles(part), readout)
        for tile in self.plan.tiles(part) if part == "train" else ():
            rows, cols = tile.rows(self.plan), tile.cols(self.plan)
            out[cols, rows] = out[rows, cols].T
        return out

    def row_blocks(self, readout: int, dtype=np.float64) -> Iterator[tuple[slice, np.ndarray]]:
        """The test x train matrix a block of test images at a time: (rows, array (h, n_train)).

        Parameters, errors: as for `matrix`.
        """
        for row in range(self.plan.blocks("test")):
            rows = self.plan.block("test", row)
            out = np.empty((rows.stop - rows.start, self.plan.n_train), dtype)
            tiles = [Tile("test", row, col) for col in range(self.plan.blocks("train"))]
            self._assemble(out, rows.start, tiles, readout)
            yield rows, out

    def _assemble(self, out, first, tiles, readout):
        """Read tiles, several at a time, into `out`, whose row 0 is row `first` of the whole."""
        missing = sum(tile not in self.done for tile in tiles)
        if missing:
            raise UserError(
                f"{missing} of {len(tiles)} {tiles[0].part} tiles of {self.path} are not computed yet: "
                "run `compute`"
            )

        def place(tile):
            rows = tile.rows(self.plan)
            block = self.read(tile, slice(readout, readout + 1))[0]
            out[rows.start - first : rows.stop - first, tile.cols(self.plan)] = block

        with ThreadPoolExecutor() as pool:
            for _ in pool.map(place, tiles):
                pass

    def _read_log(self) -> dict[Tile, Done]:
        done = {}
        log = self.path / "tiles.jsonl"
        text = log.read_text("utf-8", "replace") if log.exists() else ""
        for line in filter(None, text.split("\n")):
            try:
                entry = json.loads(line)
                tile = self._tiles[entry["tile"]]
                if entry["digests"] is None:
                    done.pop(tile, None)
                else:
                    done[tile] = Done(tuple(entry["digests"]), float(entry["seconds"]), float(entry["time"]))
            except (ValueError, TypeError, KeyError):  # torn or damaged: that tile is not done
                continue
        return done

    def _append(self, entry):
        # The leading newline ends a line that an earlier run left torn.
        data = f"\n{json.dumps(entry)}\n".encode()
        with self._logging:
            while data:
                data = data[self._log.write(data) :]
            os.fsync(self._log.fileno())


def _fingerprint(plan, attributes) -> dict:
    if len(attributes["readouts"]) != plan.readouts:
        raise ValueError(f"{len(attributes['readouts'])} readouts do not fit the plan's {plan.readouts}")
    sizes = {"n_train": plan.n_train, "n_test": plan.n_test, "tile": plan.tile}
    return {"cntk_bench_format": FORMAT, **attributes, **sizes}


def _write_labels(group, labels):
    for name, y in zip(("y_train", "y_test"), labels, strict=True):
        y = np.asarray(y, np.int64)
        group.create_array(name, data=y, fill_value=-1, compressors=[Crc32cCodec()], overwrite=True)


def _digest(plane) -> str:
    return hashlib.sha256(np.ascontiguousarray(plane)).hexdigest()


def _flush(path):
    """Put a file, or a directory's list of names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _writing(path):
    """Turn what the operating system says against writing into one line and its remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise UserError(
                f"no space left to write {path} ({error.strerror}): free some and run the same command "
                "again; finished tiles are kept"
            ) from error
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): use a new output directory that can be written"
        ) from error


def _show(value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _one_line(error) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
