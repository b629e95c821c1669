"""A store's numbers: two Zarr v3 arrays with one chunk, and so one file, per tile and readout.

    train, test   float32 (readouts, n_train | n_test, n_train), fill NaN, checksummed

Of `train` only the tiles with row >= col are written. Chunks are written whole or not at all. An existing
chunk does not mean that its tile is done; only the journals tell.
"""

import errno
import hashlib
import re
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.grams.lines import digest_of
from cntk_bench.grams.tiles import PARTS, Plan, Tile
from cntk_bench.system import libraries
from cntk_bench.system.bucket import Bucket
from cntk_bench.system.files import PARTIAL, flush, is_plain, require_no_link
from cntk_bench.text import one_line, short

zarr = libraries.zarr()
Crc32cCodec = zarr.codecs.Crc32cCodec

# Errors if something else has a chunk's name: that chunk is lost, and writing it again repairs it.
NO_CHUNK = (errno.ENOTDIR, errno.ELOOP)
STRAY = re.compile(r"(train|test)/c(\.\d+){3}(\..*)?")  # relative to the store


class Unreadable(UserError):
    """The operating system refuses to read numbers at the moment; they are not necessarily damaged."""


def create(group: Any, plan: Plan) -> None:
    """Create the two arrays of a plan in a Zarr group."""
    for part in PARTS:
        group.create_array(
            part,
            shape=(plan.readouts, plan.size(part), plan.n_train),
            chunks=(1, plan.tile, plan.tile),
            dtype="float32",
            fill_value=np.nan,
            compressors=[Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},  # one directory to flush
        )


def digest(plane: np.ndarray) -> int:
    """Digest of a tile's numbers for one readout: the part of their SHA-256 that journals keep."""
    return digest_of(hashlib.sha256(np.ascontiguousarray(plane).data).hexdigest())


def name(tile: Tile, readout: int) -> str:
    """Name of a chunk, relative to the store."""
    return f"{tile.part}/c.{readout}.{tile.row}.{tile.col}"


class Chunks:
    """The arrays of a store on disk; `objects.ObjectChunks` is the equivalent for object stores.

    Raises
    ------
    ValueError
        If the arrays do not fit the plan.
    UserError
        If there is a link in the place of an array.
    """

    def __init__(self, path: Path | Bucket, group: Any, plan: Plan):
        self.plan = plan
        self._place(path)
        self._arrays: dict[str, Any] = {part: group[part] for part in PARTS}
        for part, array in self._arrays.items():
            least = (plan.readouts, plan.size(part), plan.n_train)  # more if growth was interrupted
            fits = array.ndim == 3 and all(map(int.__ge__, array.shape, least))
            if not fits or array.chunks != (1, plan.tile, plan.tile):
                raise ValueError(f"{part} does not fit the plan")

    def _place(self, path: Any) -> None:
        for part in PARTS:
            require_no_link(path / part)
        self.path = path

    def resize(self, plan: Plan) -> None:
        """Enlarge the arrays to the size of a larger plan; no chunk is touched."""
        for part, array in self._arrays.items():
            wanted = (plan.readouts, plan.size(part), plan.n_train)
            array.resize(tuple(map(max, array.shape, wanted)))

    def write(self, tile: Tile, readouts: Sequence[int], block: np.ndarray) -> None:
        """Write a tile's numbers, (readouts, h, w) float32, and flush them to disk."""
        files = [self.file(tile, readout) for readout in readouts]
        for file in files:
            if file.is_dir():  # not ours, and os.replace would fail on it
                file.rename(file.with_name(f"aside-{file.name}-{uuid.uuid4().hex}"))
        for readout, plane in zip(readouts, block, strict=True):
            self._put(tile, readout, plane)
        with ThreadPoolExecutor(8) as pool:  # concurrent flushes together cost about as much as one
            list(pool.map(flush, files))
        flush(self.path / tile.part)

    def _put(self, tile: Tile, readout: int, plane: np.ndarray) -> None:
        """Write a whole chunk, with NaN where the array is larger than the plan.

        Of a chunk written in part, Zarr would first read the rest, and fail if that is damaged.
        """
        array = self._arrays[tile.part]
        first = tile.rows(self.plan).start, tile.cols(self.plan).start
        ends = [min(start + self.plan.tile, size) for start, size in zip(first, array.shape[1:], strict=True)]
        whole = np.full([end - start for start, end in zip(first, ends, strict=True)], np.nan, np.float32)
        whole[: plane.shape[0], : plane.shape[1]] = plane
        array[readout, first[0] : ends[0], first[1] : ends[1]] = whole

    def read(self, tile: Tile, readout: int) -> tuple[np.ndarray | None, str | None]:
        """Read a tile's numbers for one readout: float32 (h, w) and None, or None and what is wrong.

        Raises
        ------
        Unreadable
            If the operating system refuses to read them at the moment.
        """
        try:
            if not is_plain(self.file(tile, readout)):
                return None, "something else has the place of a chunk"
            where = (readout, tile.rows(self.plan), tile.cols(self.plan))
            return self._arrays[tile.part].get_basic_selection(where), None
        except ValueError as error:  # a checksum, or a chunk of a wrong length
            return None, one_line(f"{type(error).__name__}: {error}", 120)
        except OSError as error:
            if error.errno in NO_CHUNK:
                return None, one_line(error.strerror, 120)
            raise Unreadable(
                f"tile {tile} of {short(str(self.path))} cannot be read now ({error.strerror or error}): "
                "mend that and run the same command again"
            ) from error

    def file(self, tile: Tile, readout: int) -> Path:
        """The file of a chunk."""
        return self.path / name(tile, readout)

    def remove_partial(self) -> None:
        """Remove partial files left by killed writers; call only while nobody writes."""
        for under in ("", *(f"{part}/" for part in PARTS)):
            for leftover in self.path.glob(f"{under}*{PARTIAL}"):
                leftover.unlink()


def are_stray(path: Path, files: Iterable[Path]) -> bool:
    """Whether all files are chunks, as remain if a run is moved away while it is being written."""
    return all(STRAY.fullmatch(str(file.relative_to(path))) for file in files)
