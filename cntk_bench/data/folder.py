"""A folder of pictures, with one folder per class (as for torchvision's ImageFolder) or a table of labels.

    photos/train/cat/1.png      or without train/ and test/, with `test_share`:      photos/cat/1.png
    photos/test/cat/7.jpg       or in any arrangement, with `labels`:                photos/2019/1.png

Classes are numbered in the natural order of their names ("img2" before "img10"). Images are ordered by class
and then by file name in natural order; with a table, by row. train/ and test/ may be written in any case;
other folders beside them are not read, and a warning names them. Links are followed. Hidden files and those
that operating systems leave behind (Thumbs.db, .DS_Store, __MACOSX) are ignored; other files not named as PNG
or JPEG are counted in a warning.
"""

import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from cntk_bench.data import classes, order, picture, table
from cntk_bench.data.classes import natural
from cntk_bench.errors import UserError
from cntk_bench.system import memory
from cntk_bench.text import short

log = logging.getLogger(__name__)

PARTS = ("train", "test")
LEFT_BEHIND = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"),
}
OTHER_NAMES = {"val", "valid", "validation", "dev", "eval"}  # that people give to folders of test images


@dataclass(frozen=True)
class Layout:
    """How the pictures of a folder become images, and which of them are for testing.

    Parameters
    ----------
    size : int, optional
        Side of the square images; with None, all pictures must already be squares of one size.
    fit : {"crop", "pad", "stretch"}
        How to make other pictures square: see `picture.FITS`.
    channels : {1, 3}, optional
        1 for grey levels, 3 for RGB. By default 1 if every picture of both sets is grey, else 3, where a
        grey picture gets three equal channels.
    labels : Path, optional
        A table of files and their labels (`table`), instead of one folder per class.
    test_share : float, optional
        Share of each class that becomes the test set, drawn with the seed, if there is no split yet.
    """

    size: int | None = None
    fit: str = "crop"
    channels: int | None = None
    labels: Path | None = None
    test_share: float | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not (_is_number(self.size, Integral) and 1 <= self.size <= 4096):
            raise UserError(f"size is {short(self.size)}: use an integer from 1 to 4096, the side in pixels")
        if self.fit not in picture.FITS:
            raise UserError(f"fit {short(self.fit)} is unknown: use one of {', '.join(picture.FITS)}")
        if self.channels not in (None, 1, 3):
            raise UserError(f"channels is {short(self.channels)}: use 1 for grey levels or 3 for RGB")
        share = self.test_share
        if share is not None and not (_is_number(share, Real) and 0 < share < 1):
            raise UserError(
                f"test_share is {short(self.test_share)}: use a number between 0 and 1, such as 0.2"
            )


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


@dataclass(frozen=True)
class _Entry:
    """A picture file, the name of its class, and its part, "train" or "test", or None if not split."""

    file: Path
    label: str
    part: str | None


def read(path: Path, layout: Layout, seed: int = 0) -> Sequence[np.ndarray]:
    """Read the pictures of a folder.

    Parameters
    ----------
    path : Path
    layout : Layout
    seed : int, optional
        Seed of the split by `layout.test_share`.

    Returns
    -------
    x_train, y_train, x_test, y_test : arrays
        uint8 images (n, P, P) or (n, P, P, 3), and names of classes, as text.

    Raises
    ------
    UserError
        If the folder is laid out otherwise, a picture cannot be read or has another size, or memory is short.
    """
    try:
        if not path.is_dir():
            what = "no folder" if path.exists() else "not there"
            raise UserError(f"{short(str(path))} is {what}: give the folder that holds the pictures")
        entries = _entries(path, layout)
    except OSError as error:
        raise UserError(
            f"{short(str(path))} cannot be listed ({error.strerror or error}): make it readable"
        ) from None
    labels = np.array([entry.label for entry in entries], str)
    split = _split(path, entries, labels, layout, seed)
    x = _decoded([entries[place].file for part in split for place in part], layout)
    n = len(split[0])
    return x[:n], labels[split[0]], x[n:], labels[split[1]]


def _entries(path: Path, layout: Layout) -> list[_Entry]:
    """Every picture of the folder, in order."""
    if layout.labels is not None:
        rows = table.read(layout.labels)
        return [_Entry(path / row.file, row.label, row.part) for row in rows]
    folders = _folders(path)
    parts = _parts(path, folders)
    if not parts:
        return list(_of_classes(path, None))
    others = sorted(set(folders) - set(parts.values()), key=natural)
    if len(parts) < 2:
        (missing,), (given,) = set(PARTS) - parts.keys(), parts.values()
        other = [name for name in others if name.lower() in OTHER_NAMES]
        remedy = f"rename {short(other[0])}/ to {missing}/" if other else f"add {missing}/"
        raise UserError(
            f"{short(str(path))} has {given}/ but no {missing}/: {remedy}, or give dataset.path="
            f"{short(str(path / given), 60)} and dataset.test_share"
        )
    if others:
        log.warning(
            "%s: %s beside %s/ and %s/ is not read",
            short(str(path)),
            short(", ".join(f"{name}/" for name in others)),
            parts["train"],
            parts["test"],
        )
    return [entry for name in PARTS for entry in _of_classes(path / parts[name], name)]


def _parts(path: Path, folders: list[str]) -> dict[str, str]:
    """Map "train" and "test" to the folders of these names, written in any case.

    Only folders that contain folders count: one without may belong to a class called "train" or "test".
    """
    found: dict[str, str] = {}
    for folder in folders:
        part = folder.lower()
        if part in PARTS and _folders(path / folder):
            if part in found:
                raise UserError(
                    f"{short(str(path))} has {found[part]}/ and {folder}/: put their folders into one"
                )
            found[part] = folder
    return found


def _of_classes(path: Path, part: str | None) -> Iterator[_Entry]:
    """Yield the pictures of a folder that has one folder per class."""
    folders, others = _folders(path), _files(path)
    if not folders:
        raise UserError(
            f"{short(str(path))} has no folder of a class: put pictures into one of each class, such as "
            "cat/1.png, or give dataset.labels"
        )
    named: dict[str, str] = {}
    for folder in sorted(folders, key=natural):
        name = classes.checked(unicodedata.normalize("NFC", folder), short(str(path)))
        if name in named:
            raise UserError(
                f"{short(str(path))} has two folders of the class {short(name)}, written in two ways: put "
                "their pictures into one"
            )
        named[name] = folder
    _require_apart(path, named)
    for name in sorted(named, key=natural):
        found = sorted(_pictures(path / named[name], others), key=lambda file: natural(os.fspath(file)))
        if not found:
            raise UserError(
                f"{short(str(path / named[name]))} holds no PNG or JPEG picture: add some, or remove the "
                "folder"
            )
        yield from (_Entry(file, name, part) for file in found)
    if others:
        log.warning(
            "%s: %d files are not read, such as %s: pictures end in %s and lie in the folder of a class",
            short(str(path)),
            len(others),
            short(str(others[0])),
            ", ".join(picture.SUFFIXES),
        )


def _require_apart(path: Path, named: Mapping[str, str]) -> None:
    """Refuse a class whose folder is a link to another class's, or to one that contains all of them."""
    known = {_identity(place): "a folder that contains all classes" for place in path.resolve().parents}
    known[_identity(path)] = "the folder of all classes"
    for name, folder in named.items():
        identity = _identity(path / folder)
        if identity in known:
            raise UserError(
                f"{short(str(path / folder))} would be a class, but leads to {known[identity]}: remove it"
            )
        known[identity] = f"the folder of the class {short(name)}"


def _identity(folder: str | Path) -> tuple[int, int]:
    """What a folder and all links to it have in common."""
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def _pictures(folder: Path, others: list[Path]) -> Iterator[Path]:
    """Yield the picture files below a class's folder; append other files to `others`."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raised):
        identity = _identity(place)
        if identity in seen:  # links may lead in circles
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted((name for name in folders if not _passed_over(name)), key=natural)
        for name in files:
            if _passed_over(name):
                continue
            file = Path(place, name)
            if name.lower().endswith(picture.SUFFIXES):
                yield file
            else:
                others.append(file)


def _raised(error: OSError) -> None:
    raise error


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def _folders(path: Path) -> list[str]:
    return [entry.name for entry in os.scandir(path) if entry.is_dir() and not _passed_over(entry.name)]


def _files(path: Path) -> list[Path]:
    return [Path(path, e.name) for e in os.scandir(path) if not e.is_dir() and not _passed_over(e.name)]


def _split(
    path: Path, entries: list[_Entry], labels: np.ndarray, layout: Layout, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the test images."""
    given = {entry.part for entry in entries}
    source = layout.labels or path
    if None in given:
        if len(given) > 1:
            raise UserError(
                f"{short(str(source))} says of some images whether they are for training or testing, but "
                "not of all: fill its column split in every row, or in none"
            )
        if layout.test_share is None:
            way = "name a column split of it" if layout.labels else "make train/ and test/ there"
            raise UserError(
                f"{short(str(source))} does not say which images are for testing: give "
                f"dataset.test_share=0.2 to hold out a part of each class, or {way}"
            )
        return order.held_out(labels, layout.test_share, seed)
    if layout.test_share is not None:
        raise UserError(
            f"dataset.test_share is {layout.test_share:g}, but {short(str(source))} is split already: leave "
            "dataset.test_share out"
        )
    parts = np.array([entry.part for entry in entries])
    train, test = (np.flatnonzero(parts == part) for part in PARTS)
    for name, some in zip(PARTS, (train, test), strict=True):
        if not len(some):
            raise UserError(f"{short(str(source))} has no images for {name}: add some")
    return train, test


def _decoded(files: Iterable[Path], layout: Layout) -> np.ndarray:
    """Read picture files into images (n, P, P) or (n, P, P, 3), uint8."""
    files, grey, out, side = list(files), True, np.empty(0, np.uint8), 0
    for number, file in enumerate(files):
        pixels = picture.read(file, layout.size, layout.fit, layout.channels)
        height, width = pixels.shape[:2]
        if height != width or (number and height != side):
            wanted = f"and others {side} x {side}" if number else "which is no square"
            raise UserError(
                f"{short(str(file))} has {width} x {height} pixels, {wanted}: give dataset.size, such as 32, "
                "to bring all to one"
            )
        if not number:
            out, side = _room(len(files), height), height
        grey &= pixels.ndim == 2
        out[number] = pixels if pixels.ndim == 3 else pixels[:, :, None]
    return out[..., 0] if grey and layout.channels != 3 else out


def _room(n: int, side: int) -> np.ndarray:
    """Allocate n images; UserError if memory does not suffice."""
    need, free = 3 * n * side**2, memory.available()
    if need > free:
        raise UserError(
            f"{n:,} images of {side} x {side} pixels need {need / memory.GIB:.3g} GiB, and "
            f"{free / memory.GIB:.3g} GiB are free: give a smaller dataset.size, or fewer images"
        )
    return np.empty((n, side, side, 3), np.uint8)
