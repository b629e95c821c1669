"""What a store keeps about its images, so that solving needs no data set and a Gram matrix can grow.

    y_train, y_test           labels
    train_index, test_index   the images' indices in the data set
    train_image, test_image   digests of the pixels that were computed with; or of the source's pixels and
                              the recipe, if machines prepare images with different last bits

All are int64 arrays (n_train,) or (n_test,), checksummed, filled with -1. They only ever get longer.
"""

import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams.chunks import Crc32cCodec, Unreadable
from cntk_bench.system.bucket import Bucket, Unreachable, reaching
from cntk_bench.system.files import is_plain
from cntk_bench.text import short

KEPT = "image_digests"  # attribute of a store: `whole` of its digests, for when these are damaged
NAMES = {  # attribute of `ImageFacts` -> the arrays of the two sets
    "labels": ("y_train", "y_test"),
    "indices": ("train_index", "test_index"),
    "digests": ("train_image", "test_image"),
}
LEAST = 4096  # entries of a chunk, at least
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ImageFacts:
    """Labels, indices and digests of images: each a pair of arrays (n_train,) and (n_test,), int64.

    labels : the images' classes.
    indices : the images' indices in the data set, or None if they are not known.
    digests : digests of the images' pixels (`digests`), or None if they are not known.
    """

    labels: Pair
    indices: Pair | None = None
    digests: Pair | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """(n_train, n_test)."""
        return len(self.labels[0]), len(self.labels[1])

    def first(self, sizes: tuple[int, int]) -> "ImageFacts":
        """The same for only the first images of either set."""
        n, m = sizes
        pairs = {name: getattr(self, name) for name in NAMES}
        return ImageFacts(**{name: pair and (pair[0][:n], pair[1][:m]) for name, pair in pairs.items()})

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 (hex) of the pixels' digests and the labels; None if the digests are not known."""
        if self.digests is None:
            return None
        arrays = (*self.digests, *self.labels)
        return hashlib.sha256(b"|".join(np.asarray(a, "<i8").tobytes() for a in arrays)).hexdigest()


def digests(x: np.ndarray, recipe: str = "") -> np.ndarray:
    """Digest each image of (n, C, P, P): (n,) int64, 63 bits of the SHA-256 of its dtype, shape and pixels.

    `recipe` says how images are prepared if x has unprepared pixels; it is part of the digest.
    """
    out = np.empty(len(x), np.int64)
    for number, image in enumerate(np.ascontiguousarray(x)):
        whole = hashlib.sha256(f"{recipe}{image.dtype.str}{image.shape}".encode() + image.tobytes()).digest()
        out[number] = int.from_bytes(whole[:8], "big") >> 1
    return out


def whole(images: np.ndarray) -> str:
    """SHA-256 (hex) of the digests of a set's images (n,), which tells them from others without these."""
    return hashlib.sha256(np.asarray(images, "<i8").tobytes()).hexdigest()


def kept(images: Pair | None) -> dict[str, list[str]]:
    """The attribute of a store that holds `whole` of both sets' digests; empty if these are not known."""
    return {} if images is None else {KEPT: [whole(one) for one in images]}


def write(group: Any, pairs: ImageFacts, path: Path | Bucket | None = None) -> None:
    """Write what is known over what is there; arrays that are longer keep their remaining entries.

    In a store on disk, at `path`, a link or file in the place of an array is set aside.
    """
    for name, arrays in NAMES.items():
        pair = getattr(pairs, name)
        for array, values in zip(arrays, pair, strict=True) if pair else ():
            place = path / array if isinstance(path, Path) else None
            if place and os.path.lexists(place) and (place.is_symlink() or not place.is_dir()):
                place.rename(place.with_name(f"aside-{array}-{uuid.uuid4().hex}"))
            with reaching(path):
                _write_one(group, array, np.asarray(values, np.int64), path)


def _write_one(group: Any, name: str, values: np.ndarray, path: Path | Bucket | None) -> None:
    try:
        array = group[name]
        sound = array.ndim == 1 and array.dtype == np.int64
    except Exception:  # missing or broken metadata
        sound = False
    if not sound:
        array = group.create_array(
            name, shape=values.shape, chunks=(max(len(values), LEAST),), dtype="int64", fill_value=-1,
            compressors=[Crc32cCodec()], overwrite=True,
        )  # fmt: skip
    if array.shape[0] < len(values):  # new entries are -1 until written
        array.resize(values.shape)
    try:
        array[: len(values)] = values
    except Exception:  # perhaps a damaged chunk, which must be read first
        if _can_be_read(array, path):  # then writing failed, and what is there stays
            raise
        group.create_array(name, data=values, fill_value=-1, compressors=[Crc32cCodec()], overwrite=True)


def _can_be_read(array: Any, path: Path | Bucket | None) -> bool:
    try:
        with reaching(path):
            array[:]
    except (OSError, UserError):
        raise
    except Exception:  # checksum, truncation
        return False
    return True


def read_all(path: Path | Bucket, group: Any, sizes: Sequence[int]) -> ImageFacts:
    """Read what is known about the first images of either set; parameters and errors as for `read`.

    Raises
    ------
    VerificationError
        If the labels are damaged.
    """
    labels, indices, digests = (read(path, group, name, sizes) for name in NAMES)
    if labels is None:
        raise VerificationError(
            f"the labels in {short(str(path))} are damaged: run `compute` again to restore them"
        )
    return ImageFacts(labels, indices, digests)


def read(path: Path | Bucket, group: Any, name: str, sizes: Sequence[int]) -> Pair | None:
    """Read one of `NAMES` for the first images of either set; None if it is missing or damaged.

    Raises
    ------
    Unreadable
        If the operating system or the server refuses to read it at the moment.
    """
    found = []
    for array, size in zip(NAMES[name], sizes, strict=True):
        values = read_one(path, group, array, size)
        if values is None:
            return None
        found.append(values)
    return found[0], found[1]


def read_one(path: Path | Bucket, group: Any, array: str, size: int) -> np.ndarray | None:
    """Read one array for the first images of its set, as `read` does for two."""
    try:
        if isinstance(path, Path) and not _is_sound(path / array):
            return None
        with reaching(path):
            values = np.asarray(group[array][:size])
    except Unreachable as error:
        raise Unreadable(f"{array} cannot be read now: {error}") from None
    except UserError:
        raise
    except OSError as error:
        raise Unreadable(
            f"{array} of {short(str(path))} cannot be read now ({error.strerror or error}): mend that and "
            "run the same command again"
        ) from None
    except Exception:  # checksum, truncation, missing or broken metadata
        return None
    # -1 means never written
    return values if values.shape == (size,) and (values >= 0).all() else None


def require_whole(path: Path | Bucket, group: Any, sizes: Sequence[int]) -> None:
    """Refuse a store whose labels, indices or digests of images are damaged.

    Raises
    ------
    VerificationError
        Says what is damaged. Indices and digests that a store never had do not count as damaged.
    """
    read_all(path, group, sizes)  # checks the labels
    for name in ("indices", "digests"):
        there = [array for array in NAMES[name] if is_there(path, group, array)]
        if there and read(path, group, name, sizes) is None:
            raise VerificationError(
                f"{' or '.join(NAMES[name])} in {short(str(path))} is damaged: run `compute` again, which "
                "restores both"
            )


def is_there(path: Path | Bucket, group: Any, array: str) -> bool:
    """Whether a store has one of these arrays, damaged or not."""
    if isinstance(path, Path):
        return os.path.lexists(path / array)
    with reaching(path):
        return array in group


def _is_sound(folder: Path) -> bool:
    """Whether an array's folder is a real folder, and reading its files cannot hang."""
    files = [folder / "zarr.json", *(folder / "c").glob("*")]
    return not folder.is_symlink() and folder.is_dir() and all(map(is_plain, files))
