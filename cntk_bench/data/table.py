"""A table of labels, with the columns file and label and optionally split. Nothing in it is executed.

    .csv        UTF-8 with a header line; separated by commas, semicolons or tabs
    .npz        arrays file_name, label and split (np.savez takes no array called file)
    .npy        one structured array with these fields
    .h5, .hdf5  datasets file, label and split (h5py)
    .parquet    columns (pyarrow)

In all of them, `file` may be called `file_name`. Other columns are ignored. File names are relative to the
folder of pictures, with / between folders; labels are text or integers, both taken as names of classes; split
is "train" or "test".
"""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cntk_bench.data import classes
from cntk_bench.errors import UserError
from cntk_bench.system.files import read_plain
from cntk_bench.text import one_line, short

COLUMNS = ("file", "label", "split")
ALIASES = {"file_name": "file"}
KNOWN = (*ALIASES, *COLUMNS)
LARGEST = 2**28  # bytes of a table, at most
MOST_ROWS = 10_000_000
Found = Mapping[str, Any]  # the columns that a table has, each a sequence of text, bytes or numbers


@dataclass(frozen=True)
class Row:
    """A file, relative to the folder of pictures, the name of its class, and "train", "test" or None."""

    file: str
    label: str
    part: str | None


def read(path: Path) -> list[Row]:
    """Read the rows of a table, in its order.

    Raises
    ------
    UserError
        If the table cannot be read or lacks a column, or a row has no label, an unknown split, or a file that
        is listed twice or lies outside the folder.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"labels {short(str(path))}: use a file that ends in {', '.join(READERS)}")
    try:
        found = reader(read_plain(path, LARGEST))
    except UserError as error:
        raise UserError(f"{short(str(path))} {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # libraries raise all kinds at damaged files
        said = getattr(error, "strerror", None) or one_line(error, 120) or type(error).__name__
        raise UserError(
            f"labels cannot be read from {short(str(path))} ({said}): write it again as a table of file and "
            "label"
        ) from None
    twice = [name for alias, name in ALIASES.items() if {alias, name} <= found.keys()]
    if twice:
        raise UserError(f"{short(str(path))} has the column {twice[0]} twice: keep one")
    found = {ALIASES.get(name, name): values for name, values in found.items()}
    missing = [name for name in COLUMNS[:2] if name not in found]
    if missing:
        raise UserError(
            f"{short(str(path))} has no column {' and no column '.join(missing)}: name its columns file "
            "and label, and split where there is one"
        )
    try:
        columns = {name: [_text(value) for value in values] for name, values in found.items()}
    except UnicodeDecodeError:
        raise UserError(f"{short(str(path))} has text that is not UTF-8: write it again in UTF-8") from None
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1 or not sizes["file"]:
        raise UserError(f"{short(str(path))} has columns of {sizes} rows: give each as many, at least one")
    parts = columns.get("split") or [None] * sizes["file"]
    for number, (value, part) in enumerate(zip(found.get("split", ()), parts, strict=False), 1):
        if part is None and not _empty(value):
            raise UserError(
                f"row {number} of {short(str(path))} has the split {short(repr(value))}: use train or test"
            )
    known: set[str] = set()
    rows = []
    for number, row in enumerate(zip(columns["file"], columns["label"], parts, strict=True), 1):
        rows.append(_checked(*row, f"row {number} of {short(str(path))}"))
        if rows[-1].file in known:
            raise UserError(
                f"row {number} of {short(str(path))} has {short(rows[-1].file)} again: list it once"
            )
        known.add(rows[-1].file)
    return rows


def _checked(file: str | None, label: str | None, part: str | None, where: str) -> Row:
    if not file or "\0" in file:
        raise UserError(f"{where} names no file: give one from the folder of pictures on, such as cat/1.png")
    plain = PurePosixPath(file.replace("\\", "/") if "/" not in file else file)
    if plain.is_absolute() or ".." in plain.parts:
        raise UserError(f"{where} names {short(file)}, outside the folder of pictures: name files within it")
    if label is None or not label.strip():
        raise UserError(f"{where} has no label of text or an integer: give one")
    if part is not None:
        part = part.strip().lower()
        if part not in ("train", "test"):
            raise UserError(f"{where} has the split {short(repr(part))}: use train or test")
    return Row(str(plain), classes.checked(label, where), part)


def _empty(value: Any) -> bool:
    """Whether a cell has no value: None, or what libraries of tables write for it, a float that is NaN."""
    return value is None or (isinstance(value, float) and isnan(value))


def _text(value: Any) -> str | None:
    """A cell as text; None if it is empty (None) or neither text nor an integer."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, str):
        return value
    return str(int(value)) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def _csv(content: bytes) -> Found:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8: save it as CSV in UTF-8") from None
    first = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    names = [name.strip().lower() for name in next(lines, [])]
    if twice := [name for name in KNOWN if names.count(name) > 1]:
        raise UserError(f"has the column {twice[0]} twice: keep one")
    rows = [row for row in lines if row]
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise UserError(
                f"has {len(names)} columns, and row {number} has {len(row)}: give each row as many"
            )
    return {name: [row[names.index(name)] for row in rows] for name in KNOWN if name in names}


def _npz(content: bytes) -> Found:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        if not isinstance(file, np.lib.npyio.NpzFile) or file.zip is None:
            raise ValueError("it is no .npz file")
        names = {name.removesuffix(".npy") for name in file.zip.namelist()}
        if sum(info.file_size for info in file.zip.infolist()) > 8 * LARGEST:
            raise ValueError(f"it unpacks to more than {8 * LARGEST} bytes")
        return {name: _flat(file[name]) for name in KNOWN if name in names}


def _npy(content: bytes) -> Found:
    array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return {name: _flat(array[name]) for name in KNOWN if name in (array.dtype.names or ())}


def _flat(array: np.ndarray) -> list[Any]:
    if array.ndim != 1 or len(array) > MOST_ROWS:
        raise ValueError(f"an array has the shape {array.shape}, not (n,) with n up to {MOST_ROWS:,}")
    if not classes.is_unicode(array):
        raise ValueError("it has a character beyond Unicode")
    return array.tolist()


def _hdf5(content: bytes) -> Found:
    try:
        import h5py
    except ImportError:
        raise UserError("needs h5py: pip install 'cntk-bench[export]'") from None
    found = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        for name in KNOWN:
            link = file.get(name, getlink=True) if name in file else None
            if link is None:
                continue
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{name} is a link")
            data = file[name]
            if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
                raise ValueError(f"{name} is no plain dataset")
            if data.ndim != 1 or len(data) > MOST_ROWS:
                raise ValueError(f"{name} has the shape {data.shape}, not (n,) with n up to {MOST_ROWS:,}")
            if data.nbytes > 8 * LARGEST:
                raise ValueError(f"{name} unpacks to more than {8 * LARGEST} bytes")
            found[name] = (data.asstr()[:] if h5py.check_string_dtype(data.dtype) else data[:]).tolist()
    return found


def _parquet(content: bytes) -> Found:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("needs pyarrow: pip install 'cntk-bench[parquet]'") from None
    file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
    if file.metadata.num_rows > MOST_ROWS:
        raise ValueError(f"it has {file.metadata.num_rows:,} rows, more than {MOST_ROWS:,}")
    names = [name for name in KNOWN if name in file.schema_arrow.names]
    rows = file.read(columns=names, use_threads=False)
    return {name: rows.column(name).to_pylist() for name in names}


READERS: dict[str, Callable[[bytes], Found]] = {
    ".csv": _csv,
    ".npz": _npz,
    ".npy": _npy,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".parquet": _parquet,
}
