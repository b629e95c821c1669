"""What a store keeps of its images, so that solving needs no data set and a Gram can grow.

    y_train, y_test           labels
    train_index, test_index   the images' places in the data set
    train_image, test_image   digests of their pixels, as they were computed with; or of the source's and
                              how they were prepared, where machines differ in the last bits

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

NAMES = {  # attribute of `Images` -> the arrays of the two sets
    "labels": ("y_train", "y_test"),
    "indices": ("train_index", "test_index"),
    "digests": ("train_image", "test_image"),
}
LEAST = 4096  # entries of a chunk
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Images:
    """Facts of training and test images, a pair of arrays (n_train,) and (n_test,), int64, each.

    labels : classes.
    indices : places in the data set, or None if they are not known.
    digests : of their pixels (`digests`), or None if they are not known.
    """

    labels: Pair
    indices: Pair | None = None
    digests: Pair | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """(n_train, n_test)."""
        return len(self.labels[0]), len(self.labels[1])

    def first(self, sizes: tuple[int, int]) -> "Images":
        """Those of the first images of either set."""
        n, m = sizes
        pairs = {name: getattr(self, name) for name in NAMES}
        return Images(**{name: pair and (pair[0][:n], pair[1][:m]) for name, pair in pairs.items()})

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 (hex) of pixels and labels; None where the pixels' digests are not known."""
        if self.digests is None:
            return None
        arrays = (*self.digests, *self.labels)
        return hashlib.sha256(b"|".join(np.asarray(a, "<i8").tobytes() for a in arrays)).hexdigest()


def digests(x: np.ndarray, recipe: str = "") -> np.ndarray:
    """Images (n, C, P, P) -> (n,) int64: 63 bits of SHA-256 of each one's shape and pixels.

    `recipe` says how images are prepared where x has the pixels before that.
    """
    out = np.empty(len(x), np.int64)
    for number, image in enumerate(np.ascontiguousarray(x)):
        whole = hashlib.sha256(f"{recipe}{image.dtype.str}{image.shape}".encode() + image.tobytes()).digest()
        out[number] = int.from_bytes(whole[:8], "big") >> 1
    return out


def write(group: Any, pairs: Images, path: Path | Bucket | None = None) -> None:
    """Write what is known, in the place of what is there; longer arrays keep what they have beyond.

    In a store on disk, at `path`, a link or a file that has an array's name is set aside.
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
    if array.shape[0] < len(values):  # the new entries are -1 until they are written
        array.resize(values.shape)
    try:
        array[: len(values)] = values
    except Exception:  # a damaged chunk that would have to be read first
        if _can_be_read(array, path):  # then it is the disk that failed, and what is there stays
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


def read_all(path: Path | Bucket, group: Any, sizes: Sequence[int]) -> Images:
    """What is known of the first images of either set; parameters, errors: as for `read`.

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
    return Images(labels, indices, digests)


def read(path: Path | Bucket, group: Any, name: str, sizes: Sequence[int]) -> Pair | None:
    """One of `NAMES` for the first images of either set; None where it is missing or damaged.

    Raises
    ------
    Unreadable
        If the operating system will not let it be read now.
    """
    found = []
    for array, size in zip(NAMES[name], sizes, strict=True):
        try:
            if isinstance(path, Path) and not _is_sound(path / array):
                return None
            with reaching(path):
                values = np.asarray(group[array][:size])
        except Unreachable as error:
            raise Unreadable(f"{' and '.join(NAMES[name])} cannot be read now: {error}") from None
        except UserError:
            raise
        except OSError as error:
            raise Unreadable(
                f"{' and '.join(NAMES[name])} of {short(str(path))} cannot be read now "
                f"({error.strerror or error}): mend that and run the same command again"
            ) from None
        except Exception:  # checksum, truncation, missing or broken metadata
            return None
        if values.shape != (size,) or not (values >= 0).all():  # -1 fills what was never written
            return None
        found.append(values)
    return found[0], found[1]


def require_whole(path: Path | Bucket, group: Any, sizes: Sequence[int]) -> None:
    """Refuse a store of which labels, places or digests of images are there and damaged.

    Raises
    ------
    VerificationError
        Of what is damaged. Places and digests that a store never had are no damage.
    """
    read_all(path, group, sizes)  # its labels
    for name in ("indices", "digests"):
        there = [array for array in NAMES[name] if _is_there(path, group, array)]
        if there and read(path, group, name, sizes) is None:
            raise VerificationError(
                f"{' or '.join(NAMES[name])} in {short(str(path))} is damaged: run `compute` again, which "
                "restores both"
            )


def _is_there(path: Path | Bucket, group: Any, array: str) -> bool:
    if isinstance(path, Path):
        return os.path.lexists(path / array)
    with reaching(path):
        return array in group


def _is_sound(folder: Path) -> bool:
    """Whether an array's folder is one, and reading its files cannot hang."""
    files = [folder / "zarr.json", *(folder / "c").glob("*")]
    return not folder.is_symlink() and folder.is_dir() and all(map(is_plain, files))
