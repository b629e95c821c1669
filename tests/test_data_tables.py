"""Tables of labels: every format gives the same rows; what is not a table is refused in one line."""

import io
import pickle
import sys

import numpy as np
import pytest
from pickles import Bomb
from PIL import Image

from cntk_bench import data
from cntk_bench.data import table
from cntk_bench.errors import UserError

ROWS = [
    ("a/1.png", "cat", "train"),
    ("a/2.png", "dog", "train"),
    ("b/1.jpg", "été", "train"),
    ("b c/猫.png", "cat", "test"),
]
FILES, LABELS, PARTS = map(list, zip(*ROWS, strict=True))


def csv(path, file, label, split=None, comma=",", encoding="utf-8"):
    columns = [file, label] + ([split] if split else [])
    lines = [comma.join(["file", "label", "split"][: len(columns)])]
    lines += [comma.join(f'"{cell}"' for cell in row) for row in zip(*columns, strict=True)]
    path.write_bytes("\r\n".join(lines).encode(encoding))


def npz(path, file, label, split=None):
    more = {} if split is None else {"split": split}
    # The column cannot be named file, the name of savez's own first argument.
    np.savez(path, file_name=file, label=label, **more)


def npy(path, file, label, split=None):
    given = (("file", file), ("label", label), ("split", split))
    columns = {name: np.array(values) for name, values in given if values is not None}
    out = np.empty(len(file), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        out[name] = values
    np.save(path, out)


def hdf5(path, file, label, split=None):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as out:
        for name, values in (("file", file), ("label", label), ("split", split)):
            if values is not None:
                out[name] = values


def parquet(path, file, label, split=None):
    pyarrow = pytest.importorskip("pyarrow")
    written = pytest.importorskip("pyarrow.parquet")
    columns = {"file": file, "label": pyarrow.array(label), "more": list(range(len(file)))}
    if isinstance(label[0], str):
        columns["label"] = columns["label"].dictionary_encode()  # as pandas writes categorical columns
    written.write_table(pyarrow.table(columns | ({"split": split} if split else {})), path)


WRITERS = {"l.csv": csv, "l.npz": npz, "l.npy": npy, "l.h5": hdf5, "l.HDF5": hdf5, "l.parquet": parquet}


def refused(words, path):
    with pytest.raises(UserError, match=words) as caught:
        table.read(path)
    said = str(caught.value)
    assert len(said) <= 300 and said.isprintable() and path.name in said
    return said


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("split", [True, False])
def test_every_format_has_the_same_rows(tmp_path, name, split):
    WRITERS[name](tmp_path / name, FILES, LABELS, PARTS if split else None)
    found = table.read(tmp_path / name)
    assert [(row.file, row.label, row.part) for row in found] == [
        (file, label, part if split else None) for file, label, part in ROWS
    ]


@pytest.mark.parametrize("parts", [[None, None, None, "test"], [True, True, True, False]])
def test_a_split_of_some_rows_is_refused_and_not_passed_over(tmp_path, parts):
    parquet(tmp_path / "l.parquet", FILES, LABELS, parts)
    for file in FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / file)
    words = "says of some .* fill its column split" if None in parts else "row 1 .* the split True: use"
    for share in (None, 0.5):
        with pytest.raises(UserError, match=words):
            data.load("folder", path=tmp_path, labels=tmp_path / "l.parquet", test_share=share)


@pytest.mark.parametrize("name", WRITERS)
def test_integers_are_names_in_every_format(tmp_path, name):
    WRITERS[name](tmp_path / name, FILES, [7, 10, 7, 3])
    assert [row.label for row in table.read(tmp_path / name)] == ["7", "10", "7", "3"]


@pytest.mark.parametrize("comma", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_as_spreadsheets_write_it(tmp_path, comma, encoding):
    csv(tmp_path / "l.csv", FILES, LABELS, PARTS, comma, encoding)
    assert [row.label for row in table.read(tmp_path / "l.csv")] == LABELS
    lines = "Split, FILE ,no,Label\nTest,a.png,1,cat\n\n".replace(",", comma)
    (tmp_path / "l.csv").write_text(lines)
    assert table.read(tmp_path / "l.csv") == [table.Row("a.png", "cat", "test")]
    (tmp_path / "l.csv").write_text(f"file{comma}label\na\\b.png{comma}cat")
    assert table.read(tmp_path / "l.csv")[0].file == "a/b.png"  # a path as Windows writes it


def test_pictures_by_a_table(tmp_path):
    rng, pictures = np.random.default_rng(0), {}
    for file in FILES:
        path = tmp_path / "photos" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures[file] = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pictures[file]).save(path)
    for name, write in WRITERS.items():
        write(tmp_path / name, FILES, LABELS, PARTS)
        found = data.load("folder", path=tmp_path / "photos", labels=tmp_path / name, size=4)
        assert found.class_names == ("cat", "dog", "été")
        assert found.x_train.shape == (3, 3, 4, 4) and found.y_test.tolist() == [0]
        # Indices are the table's rows.
        assert found.y_train[np.argsort(found.train_index)].tolist() == [0, 1, 2]
    csv(tmp_path / "l.csv", [*FILES, "c/missing.png"], [*LABELS, "dog"], [*PARTS, "train"])
    with pytest.raises(UserError, match="c/missing.png cannot be read .*No such file"):
        data.load("folder", path=tmp_path / "photos", labels=tmp_path / "l.csv", size=4)
    csv(tmp_path / "l.csv", FILES, LABELS)
    with pytest.raises(UserError, match="l.csv does not say which images are for testing: .* column split"):
        data.load("folder", path=tmp_path / "photos", labels=tmp_path / "l.csv", size=4)


ROWS_REFUSED = {
    "outside": ("../x.png,cat", "row 1 of .* names ../x.png, outside the folder of pictures"),
    "absolute": ("/etc/passwd,cat", "names /etc/passwd, outside"),
    "outside, as Windows has it": (r"a\..\..\x.png,cat", "outside the folder"),
    "no file": (",cat", "row 1 of .* names no file"),
    "a null": ("a\0b.png,cat", "names no file|line contains NUL"),
    "no label": ("a.png, ", "row 1 of .* has no label"),
    "escapes": ("a.png,\x1b[2J", "name classes by 1 to 200 characters, all visible"),
    "long": ("a.png," + "x" * 201, "name classes by 1 to 200"),
    "twice": ("a.png,cat\n./a.png,dog", "row 2 of .* has a.png again: list it once"),
    "short": ("a.png", "has 2 columns, and row 1 has 1"),
    "an open quote": ('"a.png,cat', "labels cannot be read from .*unexpected end of data"),
    "no rows": ("", "has columns of .* rows: give each as many, at least one"),
    "long cell": ("a" * 200_000 + ",cat", "field larger than field limit"),
}


@pytest.mark.parametrize("rows, words", ROWS_REFUSED.values(), ids=ROWS_REFUSED.keys())
def test_rows_that_cannot_be(tmp_path, rows, words):
    (tmp_path / "l.csv").write_text(f"file,label\n{rows}")
    refused(words, tmp_path / "l.csv")


def test_other_columns_and_splits(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text("path,class\na.png,cat")
    refused("has no column file and no column label: name its columns file and label", path)
    path.write_text("")
    refused("has no column file", path)
    path.write_text("file,label,split\na.png,cat,dev")
    refused("row 1 of .* has the split 'dev': use train or test", path)
    path.write_bytes(b"file,label\na.png,\xff\xfe")
    refused("is not UTF-8: save it as CSV in UTF-8", path)


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_executed_and_damage_is_one_line(tmp_path, name):
    path, trace = tmp_path / name, tmp_path / "opened"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    refused("labels cannot be read from|is not UTF-8", path)
    WRITERS[name](path, FILES, LABELS, PARTS)
    intact = path.read_bytes()
    for length in (*range(0, len(intact) - 1, max(len(intact) // 12, 1)),):
        path.write_bytes(intact[:length])
        try:
            table.read(path)
        except UserError as error:
            assert len(str(error)) <= 300 and str(error).isprintable()
        else:
            assert name == "l.csv"  # a CSV cut off between rows is still a table
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(intact), 60):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 0xFF]) + intact[place + 1 :])
        try:
            table.read(path)
        except UserError as error:
            assert len(str(error)) <= 300 and str(error).isprintable()
    assert not trace.exists()


@pytest.mark.parametrize("order", "<>")
def test_characters_beyond_unicode(tmp_path, order):
    """NumPy puts them into strings, on which Python's own functions fail."""
    labels = np.array(LABELS, f"{order}U3")
    labels.view(f"{order}u4")[5] = 0x110000
    np.savez(tmp_path / "l.npz", file_name=FILES, label=labels)
    refused("it has a character beyond Unicode", tmp_path / "l.npz")
    x = np.zeros((4, 2, 2), np.uint8)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=labels, x_test=x, y_test=LABELS)
    with pytest.raises(UserError, match="y_train has a character beyond Unicode: write the labels again"):
        data.load("npz", path=tmp_path / "d.npz")


def test_objects_and_other_arrays_are_refused_unopened(tmp_path):
    trace = tmp_path / "opened"
    objects = np.empty(4, object)
    objects[:] = Bomb(trace)
    np.savez(tmp_path / "l.npz", file_name=FILES, label=objects)
    refused("labels cannot be read from .*allow_pickle=False", tmp_path / "l.npz")
    np.save(tmp_path / "l.npy", objects)
    refused("labels cannot be read from", tmp_path / "l.npy")
    np.savez(tmp_path / "l.npz", file_name=FILES, label=np.zeros((4, 2), int))
    refused(r"an array has the shape \(4, 2\), not \(n,\)", tmp_path / "l.npz")
    np.savez(tmp_path / "l.npz", file_name=FILES, label=np.arange(4) / 2)
    refused("row 1 of .* has no label of text or an integer", tmp_path / "l.npz")
    np.savez(tmp_path / "l.npz", file_name=FILES, label=LABELS[:3])
    refused("has columns of .* rows: give each as many", tmp_path / "l.npz")
    with (tmp_path / "l.npy").open("wb") as file:
        np.savez(file, file_name=FILES, label=LABELS)
    refused("labels cannot be read from", tmp_path / "l.npy")
    assert not trace.exists()


def test_hdf5_reads_no_other_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(b"secret!!" * 4)
    for make, words in (
        (
            lambda out: out.__setitem__("label", h5py.ExternalLink("other.h5", "label")),
            "is a link",
        ),
        (lambda out: out.__setitem__("label", h5py.SoftLink("/file")), "is a link"),
        (
            lambda out: out.create_dataset("label", (4,), "S8", external=[(str(tmp_path / "secret"), 0, 32)]),
            "is no plain dataset",
        ),
        (lambda out: out.create_group("label"), "is no plain dataset"),
        (lambda out: out.create_dataset("label", (2**40,), "S8", chunks=(9,)), "has the shape"),
    ):
        with h5py.File(tmp_path / "l.h5", "w") as out:
            out["file"] = FILES
            make(out)
        refused(words, tmp_path / "l.h5")


@pytest.mark.parametrize("needed", ["l.h5 h5py export", "l.parquet pyarrow parquet"])
def test_a_library_that_is_missing(tmp_path, monkeypatch, needed):
    name, module, extra = needed.split()
    for one in (module, f"{module}.parquet"):
        monkeypatch.setitem(sys.modules, one, None)
    (tmp_path / name).write_bytes(b"x")
    refused(rf"needs {module}: pip install 'cntk-bench\[{extra}\]'", tmp_path / name)


def test_files_that_cannot_be_read(tmp_path):
    refused("labels cannot be read from .*No such file", tmp_path / "l.csv")
    (tmp_path / "l.csv").mkdir()
    refused("Is a directory", tmp_path / "l.csv")
    refused("use a file that ends in .csv, .npz, .npy, .h5, .hdf5, .parquet", tmp_path / "l.xlsx")


def test_a_table_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "LARGEST", 10_000)
    content = io.BytesIO()
    np.savez_compressed(content, file_name=np.zeros(10**6, np.uint8), label=np.zeros(10**6, np.uint8))
    (tmp_path / "l.npz").write_bytes(content.getvalue())
    refused("it unpacks to more than 80000 bytes", tmp_path / "l.npz")
    monkeypatch.setattr(table, "MOST_ROWS", 3)
    monkeypatch.setattr(table, "LARGEST", 10**6)
    for name in ("l.npz", "l.npy", "l.h5", "l.parquet"):
        WRITERS[name](tmp_path / name, FILES, LABELS)
        refused("not .n,. with n up to 3|it has 4 rows, more than 3", tmp_path / name)


@pytest.mark.parametrize("name", ["l.npz", "l.npy", "l.parquet"])
def test_bytes_that_are_no_text(tmp_path, name):
    WRITERS[name](tmp_path / name, FILES, [b"\xff", b"a", b"b", b"a"])
    refused("has text that is not UTF-8: write it again in UTF-8", tmp_path / name)


def test_a_column_that_is_there_twice(tmp_path):
    (tmp_path / "l.csv").write_text("file,label,label\n1.png,cat,dog\n")
    refused("has the column label twice: keep one", tmp_path / "l.csv")
    (tmp_path / "l.csv").write_text("file,file_name,label\n1.png,2.png,dog\n")
    refused("has the column file twice: keep one", tmp_path / "l.csv")
    file = pytest.importorskip("h5py").File(tmp_path / "l.h5", "w")
    with file as out:
        out["file"], out["file_name"], out["label"] = FILES, FILES, LABELS
    refused("has the column file twice: keep one", tmp_path / "l.h5")


def test_hdf5_that_unpacks_to_more_than_fits(tmp_path):
    h5py = pytest.importorskip("h5py")
    # Nothing is written to the data set, so the file stays small.
    with h5py.File(tmp_path / "l.h5", "w") as out:
        out.create_dataset("file", (10_000_000,), "S1000")
        out["label"] = [1, 2]
    refused("file unpacks to more than", tmp_path / "l.h5")
