"""The YAML: what is accepted, what is said of each mistake, and that dumping loses nothing."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cntk_bench.columns import FAMILIES, find
from cntk_bench.config import config, names, yaml12
from cntk_bench.errors import Mistakes, UserError
from cntk_bench.kernels.spec import Readout
from cntk_bench.records.directory import Run
from cntk_bench.runs import compute, images
from cntk_bench.system import paths

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
DEPTHS = (3, 4, 6, 11, 21)


@pytest.fixture
def load(tmp_path):
    """A function that loads YAML text, with overrides."""

    def load(text, *overrides, **more):
        path = tmp_path / "run.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return config.load(path, overrides, **more)

    return load


@pytest.fixture
def refusal(load):
    """A function that returns the one line with which YAML text is refused."""

    def refusal(text, *overrides):
        with pytest.raises(UserError) as caught:
            load(text, *overrides)
        assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300
        return str(caught.value)

    return refusal


def test_the_least_config_has_sensible_defaults(load):
    found = load("dataset: {name: digits}")
    assert found.name == "run"
    assert found.dataset.model_dump() == {
        "name": "digits",
        "path": None,
        "size": None,
        "fit": "crop",
        "channels": None,
        "labels": None,
        "test_share": None,
        "classes": None,
        "train": None,
        "test": None,
        "draws": 1,
        "seed": 0,
        "order": "balanced",
        "preprocess": "standardize",
    }
    assert found.kernel.columns == ("CNTK-V", "CNTK-GAP") and found.kernel.depths == DEPTHS
    assert found.compute.backend == "auto" and found.compute.tile == "auto"
    assert found.solve.ridge == 0.0 and found.solve.precision == "auto" and found.solve.memory is None


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load_and_are_headed(path):
    found = config.load(path)
    assert found.name == path.stem
    assert set(found.kernel.depths) <= {*DEPTHS, 15}  # 5 and 14 convolutions, published elsewhere
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    command = "converge" if path.stem.startswith("converge") else "run"
    assert any(f"Command:  cntk-bench {command} configs/{path.name}" in line for line in head)
    for label in ("Time:", "Score:"):
        assert any(label in line for line in head)


def test_shipped_configs_are_all_there():
    names = {path.stem for path in CONFIGS}
    assert names >= {"quickstart", "cifar10-small", "cifar10-cntk-v", "cifar10-cntk-gap"}
    full = config.load(next(path for path in CONFIGS if path.stem == "cifar10-cntk-gap"))
    assert (full.dataset.train, full.dataset.test, full.solve.ridge) == (None, None, 0.0)


def test_overrides_are_yaml_and_the_last_one_counts(load):
    found = load(
        "name: a\ndataset: {train: 5}",
        "dataset.train=100",
        "dataset.train=200",
        "dataset.path=../data/x=1.npz",
        "kernel.depths=[3, 5]",
        "solve.ridge=loo",
        "compute.tile=64",
        "compute={tile: 32}",
    )
    assert found.dataset.train == 200
    assert found.dataset.path == "../data/x=1.npz"
    assert found.kernel.depths == (3, 5)
    assert found.solve.ridge == "loo"
    assert found.compute.tile == 32
    assert load("dataset: {train: 5}", "dataset.train=null").dataset.train is None


@pytest.mark.parametrize(
    "text, ridge",
    [
        ("0", 0.0),
        ("1e-6", 1e-6),
        ("1.0e-6", 1e-6),
        ("[0, 1e-6, 0.5]", (0.0, 1e-6, 0.5)),
        ("loo", "loo"),
    ],
)
def test_ridges(load, text, ridge):
    assert load(f"solve: {{ridge: {text}}}").solve.ridge == ridge


@pytest.mark.parametrize(
    "text",
    [
        "dataset: {name: npz, path: ü/x y.npz, train: 10, test: 7, seed: 3, preprocess: none}",
        "name: '695e0514'\nkernel: {columns: [CNN-GP-LAP4, CNTK-GAP], depths: [21, 3]}",
        "compute: {backend: cpu, tile: 7}\nsolve: {ridge: [0, 1e-20, 3], precision: float32, device: cpu}",
        "name: 'null'\nsolve: {ridge: loo, memory: 3}\ndataset: {classes: [3, 5, 0]}",
    ],
)
def test_dump_loads_back_equal(load, text):
    found = load(text)
    assert load(config.dump(found)) == found
    assert config.dump(found).startswith("name: ")


def test_a_config_cannot_be_changed(load):
    with pytest.raises(ValueError):
        load("name: a").name = "b"


def test_readouts_go_column_by_column(load):
    kernel = load("kernel: {columns: [CNTK-GAP, CNN-GP-LAP12], depths: [4, 3]}").kernel
    assert kernel.cells == (("CNTK-GAP", 4), ("CNTK-GAP", 3), ("CNN-GP-LAP12", 4), ("CNN-GP-LAP12", 3))
    assert kernel.readouts == (
        Readout("ntk", "gap", 4, "hidden"),
        Readout("ntk", "gap", 3, "hidden"),
        Readout("nngp", "lap:12", 4),
        Readout("nngp", "lap:12", 3),
    )


@pytest.mark.parametrize(
    "column, expected",
    [
        ("CNTK-V", Readout("ntk", "v", 6, "all")),
        ("CNTK-GAP", Readout("ntk", "gap", 6, "hidden")),
        ("CNTK-LAP0", Readout("ntk", "lap:0", 6, "all")),
        ("CNN-GP-V", Readout("nngp", "v", 6)),
        ("CNN-GP-GAP", Readout("nngp", "gap", 6)),
        ("CNN-GP-LAP4", Readout("nngp", "lap:4", 6)),
    ],
)
def test_columns(column, expected):
    assert find(column).needs(6) == (expected,)


@pytest.mark.parametrize(
    "column, remedy",
    [
        ("CNTK-v", "did you mean CNTK-V?"),
        ("CNTK_GAP", "did you mean CNTK-GAP?"),
        ("CNKT-GAP", "did you mean CNTK-GAP?"),
        ("CNN-GPGAP", "did you mean CNN-GP-GAP?"),
        ("CNN-VV", "did you mean CNN-V?"),
        ("cntk-gap", "did you mean CNTK-GAP?"),
        ("CNTK-LAP", "did you mean CNTK-LAP<c>, such as CNTK-LAP4?"),
        ("CNN-GP-LAP04", "did you mean CNN-GP-LAP<c>, such as CNN-GP-LAP4?"),
        ("CNTK-LAP-1", "did you mean CNTK-LAP<c>, such as CNTK-LAP4?"),
        (
            "",
            f"use one of {', '.join(name for _, names in FAMILIES for name in names)}"
            "; or a kernel followed by -FLIP",
        ),
    ],
)
def test_an_unknown_column_is_told_the_nearest(column, remedy):
    with pytest.raises(UserError) as caught:
        find(column).needs(3)
    assert str(caught.value) == f"column {column!r} is unknown: {remedy}"


def test_cntk_v_may_have_depth_2_but_cntk_gap_may_not(load, refusal):
    assert load("kernel: {columns: [CNTK-V], depths: [2, 3]}").kernel.depths == (2, 3)
    assert "depth 2 is not possible for ntk/gap/hidden" in refusal("kernel: {depths: [2, 3]}")


@pytest.mark.parametrize(
    "override, message",
    [
        ("dataset.trian=3", "unknown key dataset.trian: did you mean dataset.train?"),
        ("dataset.nam=a", "unknown key dataset.nam: did you mean dataset.name?"),
        ("nam=a", "unknown key nam: did you mean name?"),
        ("train=200", "unknown key train: did you mean dataset.train?"),
        ("kernel.column=[CNTK-V]", "unknown key kernel.column: did you mean kernel.columns?"),
        ("solver.ridge=1", "unknown key solver: did you mean solve?"),
        (
            "solve.zzz=1",
            "unknown key solve.zzz: the keys here are solve.solver, solve.ridge, solve.normalize, "
            "solve.precision, solve.device, solve.memory, solve.leave_one_out, solve.tolerance, "
            "solve.iterations",
        ),
        ("dataset.train=-5", "dataset.train is -5: expected an integer of at least 1, or null for all"),
        ("dataset.train=0", "dataset.train is 0: expected an integer of at least 1, or null for all"),
        ("dataset.test=1.5", "dataset.test is 1.5: expected an integer of at least 1, or null for all"),
        ("dataset.test=true", "dataset.test is true: expected an integer of at least 1, or null for all"),
        ("dataset.test='9'", "dataset.test is '9': expected an integer of at least 1, or null for all"),
        ("dataset.test.x=9", "dataset.test is {'x': 9}: expected an integer of at least 1, or null for all"),
        ("dataset.seed=-1", "dataset.seed is -1: expected an integer of at least 0"),
        ("dataset.seed=null", "dataset.seed is null: expected an integer of at least 0"),
        ("dataset.name=5", "dataset.name is 5: expected the name of a data set, such as digits"),
        ("dataset.path=[a]", "dataset.path is ['a']: expected a file or folder, or null"),
        (
            "dataset.preprocess=zsca",
            "dataset.preprocess is 'zsca': preprocess zsca is unknown: did you mean zca?",
        ),
        (
            "dataset.preprocess=[zca, none]",
            "dataset.preprocess is ['zca', 'none']: preprocess none is unknown: use one of "
            "standardize, center, unit_norm, contrast, zca; or none alone",
        ),
        (
            "dataset.preprocess=5",
            "dataset.preprocess is 5: expected none, a step such as standardize, or a list of them, such as "
            "[contrast, zca]",
        ),
        (
            "dataset.preprocess=[]",
            "dataset.preprocess is []: preprocess lists 0 steps: list 1 to 10, or say none",
        ),
        (
            "preprocess.zca_regularizer=0",
            "preprocess.zca_regularizer is 0: expected a number above 0, relative to the mean "
            "variance of a pixel",
        ),
        (
            "preprocess.contrast_scale=std",
            "preprocess.contrast_scale is 'std': expected deviation or norm",
        ),
        (
            "dataset=5",
            "dataset is 5: expected keys of its own, such as dataset.name: write some, or leave it out",
        ),
        ("dataset=", "no value is given: write dataset=null for nothing"),
        ("dataset.train=", "no value is given: write dataset.train=null for nothing"),
        ("dataset.train=#5", "no value is given: write dataset.train=null for nothing"),
        (
            "dataset=null",
            "dataset is null: expected keys of its own, such as dataset.name: write some, or leave it out",
        ),
        ("kernel.depths=[]", "kernel.depths is []: expected a list of integers, such as [3, 4, 6]"),
        ("kernel.depths=3", "kernel.depths is 3: expected a list of integers, such as [3, 4, 6]"),
        (
            "kernel.depths=[3, x]",
            "kernel.depths is [3, 'x']: expected a list of integers, such as [3, 4, 6]",
        ),
        ("kernel.depths=[3, 4, 3]", "kernel.depths lists 3 twice: list it once"),
        ("kernel.columns=[CNTK-V, CNTK-V]", "kernel.columns lists CNTK-V twice: list it once"),
        (
            "kernel.columns=CNTK-V",
            "kernel.columns is 'CNTK-V': expected a list of columns, such as [CNTK-V, CNTK-GAP]",
        ),
        ("kernel.columns=[CNTK-GPA]", "column 'CNTK-GPA' is unknown: did you mean CNTK-GAP?"),
        (
            "kernel.depths=[1]",
            "depth 1 is not possible for ntk/v/all: use an integer of at least 2 "
            "(depth = 3x3 convolutions + 1)",
        ),
        ("compute.tile=0", "compute.tile is 0: expected auto, or an integer of at least 1"),
        ("compute.tile=big", "compute.tile is 'big': expected auto, or an integer of at least 1"),
        ("compute.backend=3", "compute.backend is 3: expected the name of a backend, such as cpu, or auto"),
        ("solve.precision=half", "solve.precision is 'half': expected auto, float64 or float32"),
        (
            "solve.tolerance=0",
            "solve.tolerance is 0: expected the relative residual at which refined and cg stop, "
            "a number from 1e-14 to 0.1",
        ),
        ("solve.device=gpu", "solve.device is 'gpu': expected auto, cpu or cuda"),
        ("name=a/b", "name is 'a/b': expected a name of letters, digits, spaces and any of . + - _"),
        ("name=..", "name is '..': expected a name of letters, digits, spaces and any of . + - _"),
        ("dataset.train", "expected key=value, such as dataset.train=200"),
        ("=3", "expected key=value, such as dataset.train=200"),
        ("dataset.=3", "expected key=value, such as dataset.train=200"),
        (
            "kernel.depths=[3",
            "not valid YAML: expected ',' or ']', but got '<stream end>': look at the brackets, "
            "quotes and indentation here and above",
        ),
        ("dataset={a: 1, a: 2}", "not valid YAML: the key 'a' is given twice: keep one"),
    ],
)
def test_each_mistake_is_told_its_value_and_the_remedy(refusal, override, message):
    assert refusal("name: a", override) == f"--set {override}: {message}"


@pytest.mark.parametrize(
    "value", ["-1", ".nan", "nan", ".inf", "'-inf'", "true", "null", "lou", "[]", "[0, -1]", "{}", "[loo]"]
)
def test_impossible_ridges(refusal, value):
    message = refusal("name: a", f"solve.ridge={value}")
    assert "solve.ridge is" in message and "expected a finite number of at least 0, a list" in message


def test_a_mistake_in_the_file_names_the_file(refusal, tmp_path):
    path = tmp_path / "run.yaml"
    assert refusal("dataset:\n  tran: 5", "name=b") == (
        f"{path} line 2: unknown key dataset.tran: did you mean dataset.train?"
    )


def test_a_mistake_in_several_overrides_names_the_one_that_counts(refusal):
    message = refusal("name: a", "dataset={train: 3}", "dataset.train=-1", "dataset.test=5")
    assert message.startswith("--set dataset.train=-1: dataset.train is -1")


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "a: 1\nb: : 2",
            " line 2: not valid YAML: mapping values are not allowed here: begin a new line for each key, "
            "and put a value that has a colon into quotes",
        ),
        (
            "dataset:\n\ttrain: 5",
            " line 2: not valid YAML: found character '\\t' that cannot start any token: "
            "indent with spaces instead of tabs",
        ),
        (
            "dataset: {train: 5",
            " line 1: not valid YAML: expected ',' or '}', but got '<stream end>': look at "
            "the brackets, quotes and indentation here and above",
        ),
        (
            '"": 1',
            " line 1: unknown key '': the keys here are "
            + ", ".join([*config.Config.model_fields, "extends"]),
        ),
        (
            "dataset:\n  train: 1\n  train: 2",
            " line 3: not valid YAML: the key 'train' is given twice: keep one",
        ),
        ("name: a\nname: a", " line 2: not valid YAML: the key 'name' is given twice: keep one"),
        ("", " is not a config: expected keys such as 'dataset:', found nothing"),
        ("- a\n- b", " is not a config: expected keys such as 'dataset:', found ['a', 'b']"),
        ("hello", " is not a config: expected keys such as 'dataset:', found 'hello'"),
        (
            "1: 2",
            " line 1: unknown key 1: the keys here are "
            + ", ".join([*config.Config.model_fields, "extends"]),
        ),
        (
            "? [a]\n: 1",
            " line 1: not valid YAML: a key must be a plain word: leave out anchors, aliases, tags, lists "
            "and mappings",
        ),
        (
            "a: 1\n---\nb: 1",
            " line 2: not valid YAML: a second document begins here (---): keep one",
        ),
    ],
)
def test_files_that_are_no_config(refusal, tmp_path, text, message):
    assert refusal(text) == f"{tmp_path / 'run.yaml'}{message}"


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00bad",
        b"name: \x01",
        "name: !!python/object/apply:os.system [true]",
        "name: !!int ''",
        b"name: \xfc",
        "name: " + "[" * 600,
        "name: " + "9" * 5000,
        "dataset: &a [*a]",
    ],
    ids=range(8),
)
def test_hostile_yaml_is_refused_in_one_line(refusal, text):
    refusal(text)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("k0: &k0 [x]\nk1: [*k0, *k0]", "write the values out"),
        ("dataset: {<<: {train: 3, test: 2}, train: 5}", "write the keys out"),
        ("dataset: !!map {train: 3}", "leave them out"),
        ("%YAML 1.1\n---\ndataset: {train: 0100}", "remove the line that begins with %YAML"),
        ("dataset: {seed: " + "[" * 3000, "use fewer"),
        ("name: [" + "x, " * 40_000 + "x]", "(more than 100000 bytes)"),
    ],
    ids=range(6),
)
def test_what_makes_a_short_text_long_or_means_two_things_is_refused(refusal, text, remedy):
    assert remedy in refusal(text)


CORE_SCHEMA = {  # YAML 1.2.2, section 10.3.2; the comments say how 1.1 reads a value differently
    "0100": 100,  # 64
    "0o17": 15,  # text
    "0x64": 100,
    "+12": 12,
    "1e-6": 1e-6,  # text
    "-.5": -0.5,  # text
    "1.": 1.0,
    ".inf": float("inf"),
    "1:40": "1:40",  # 100
    "1_000": "1_000",  # 1000
    "0b11": "0b11",  # 3
    "yes": "yes",  # true
    "off": "off",  # false
    "2020-01-02": "2020-01-02",  # a date
    "2020-13-45": "2020-13-45",  # an error
    "=": "=",  # an error
    "True": True,
    "~": None,
    "'0100'": "0100",
    '"\\x41"': "A",
}


@pytest.mark.parametrize("text", CORE_SCHEMA)
def test_plain_words_mean_what_yaml_1_2_says(text):
    found = yaml12.read(text, "here")
    assert found == CORE_SCHEMA[text] and type(found) is type(CORE_SCHEMA[text])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_files_in_the_encodings_of_yaml(load, encoding):
    assert load("name: größe".encode(encoding)).name == "größe"


words = st.text(st.characters(codec="utf-8"), max_size=30)
numbers = st.integers(1, 10**9)
configs = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-zäß数_0-9][A-Za-zäß数0-9 .+_-]{0,40}", fullmatch=True),
        "dataset": st.fixed_dictionaries(
            {
                "name": words.filter(bool),
                "path": st.none()
                # Not "~", which would become the home directory on loading.
                | st.binary(min_size=1, max_size=30)
                .map(lambda raw: os.fsdecode(raw.replace(b"\0", b"/")))
                .filter(lambda path: not path.startswith("~")),
                "classes": st.none() | st.lists(st.integers(0, 999), min_size=2, max_size=5, unique=True),
                "train": st.none() | numbers,
                "test": st.none() | numbers,
                "seed": st.integers(0, 2**63 - 1),
                "preprocess": st.sampled_from(
                    ["standardize", "none", "zca", ("contrast", "zca"), ("center",)]
                ),
            }
        ),
        "kernel": st.fixed_dictionaries(
            {
                "columns": st.lists(
                    st.sampled_from(["CNTK-V", "CNTK-GAP", "CNN-GP-LAP12"]), min_size=1, unique=True
                ),
                "depths": st.lists(st.integers(3, config.MOST_DEPTH), min_size=1, max_size=4, unique=True),
            }
        ),
        "compute": st.fixed_dictionaries({"backend": words.filter(bool), "tile": st.just("auto") | numbers}),
        "solve": st.fixed_dictionaries(
            {
                "ridge": st.just("loo")
                | st.floats(0, 1e15)
                | st.lists(st.floats(0, 1e15), min_size=1, max_size=3),
                "precision": st.sampled_from(["auto", "float64", "float32"]),
                "device": st.sampled_from(["auto", "cpu", "cuda"]),
                "memory": st.none() | st.floats(1e-9, 1000),
            }
        ),
    }
)


@given(asked=configs)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_dumped_loads_back_equal_whatever_it_is(load, asked):
    found = config.Config.model_validate(asked)
    text = config.dump(found)
    assert load(text.encode(), kept=True) == found  # names that only other packages know are kept, too
    assert yaml.safe_load(text)["name"] == found.name  # YAML 1.1 readers agree


@given(raw=st.binary(max_size=200) | st.text("{}[]:,-?&*!|>'\"%@` \n\t#<=~ax01.\\U\x00\ufeff", max_size=60))
@example(raw="&a [*a]")
@example(raw='dataset: "\\UFFFFFFFF"')
@example(raw='{name: "\\ud800"}')
@example(raw='dataset: {path: "a\\0b"}')
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_text_is_read_or_refused_in_one_line(load, raw):
    for attempt in (
        lambda: load(raw),
        lambda: load("name: a", raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw),
        lambda: load("name: a", f"dataset.path={raw}"),
    ):
        try:
            attempt()
        except UserError as error:
            lines = str(error).splitlines()
            assert all(line.isprintable() and len(line) <= 302 for line in lines)
            assert len(lines) == 1 or isinstance(error, Mistakes)


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        (f"kernel.depths=[3, {10**22}]", "use at most 10,000"),
        (f"dataset.train={10**22}", "use at most 1,000,000,000"),
        (f"compute.tile={10**10}", "use at most 1,000,000,000"),
        ("solve.ridge=1e16", "solve.ridge is 1e+16: use at most 1e+15"),
        (f"dataset.seed={2**63}", f"use at most {2**63 - 1:,}"),
        (f"dataset.train={'9' * 5000}", "use fewer"),
        (f"kernel.depths={list(range(3, 2000))}", "use at most 2,000"),
        (f"dataset.name={'x' * 200}", "expected the name of a data set"),
        (f"dataset.path={'x' * 5000}", "expected a file or folder"),
        ('dataset.path="a\\0b"', "no path can"),
        ('dataset.path="\\ud800"', "expected a file or folder"),
        ("dataset.path=~nobody-of-this-name/x", "give the whole path"),
        ('name="m\\udcfcll"', "expected a name"),
        ('dataset.name="m\\udcfcll"', "expected the name of a data set"),
        ("name=1e5", "in quotes"),
        ("dataset.classes=[3]", "at least two different labels"),
        ("dataset.classes=[3, 3]", "at least two different labels"),
        ("dataset.classes=[3, -1]", "at least two different labels"),
        ("dataset.classes=3", "at least two different labels"),
        ("solve.memory=0", "a number above 0"),
        ("solve.memory=true", "a number above 0"),
        ("solve.memory=.nan", "a number above 0"),
        (f"solve.ridge={10**400}", "use fewer"),
        (".".join(["x"] * 5000) + "=1", "expected key=value"),
        ("x" * 100_000 + "=1", "the keys here are"),
        ("dataset.train=" + "x" * 200_000, "use at most"),
    ],
    ids=range(26),
)
def test_values_out_of_bounds_are_told_so_in_one_short_line(refusal, override, remedy):
    assert remedy in refusal("name: a", override)


def test_a_run_has_no_config_that_no_command_reads(load, monkeypatch, tmp_path):
    """With all its keys a config may be longer than as it was written."""
    found = load("dataset: {name: digits}")
    monkeypatch.setattr(yaml12, "MOST_BYTES", 200)
    with pytest.raises(UserError, match="with all keys the config has .* characters: use at most 200"):
        compute.begin(Run(tmp_path), found, {}, None)


def test_a_comment_is_no_part_of_a_value_and_not_passed_over(load, refusal):
    assert "only /data/set is read, as # begins a comment" in refusal("name: a", "dataset.path=/data/set #2")
    assert load("dataset: {name: npz}", "dataset.path='/data/set #2'").dataset.path == "/data/set #2"
    assert load("dataset: {name: npz}", "dataset.path=/data/set#2").dataset.path == "/data/set#2"
    assert load("name: a", "dataset.train=20 # few").dataset.train == 20


@pytest.mark.parametrize("folder", ["~", "~nobody-of-this-name", "~root"])
def test_a_folder_may_begin_with_a_tilde(load, monkeypatch, tmp_path, folder):
    """Also where pathlib has dropped the ./ before it."""
    monkeypatch.chdir(tmp_path)
    found = load(f"dataset: {{name: npz, path: ./{folder}/x.npz}}")
    assert images.with_path(found).dataset.path == str(tmp_path / folder / "x.npz")
    assert paths.expanded(str(Path(paths.expanded(f"./{folder}")))) == str(tmp_path / folder)


def test_a_tilde_is_the_home_directory(load, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert load("dataset: {name: npz, path: ~/x.npz}").dataset.path == "/home/ada/x.npz"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("config (1).yaml", "config-1"),
        ("häßlich.yaml", "häßlich"),
        ("ha\u0308sslich.yaml", "hässlich"),
        ("数.yml", "数"),
        (".yaml", "yaml"),
        ("-.yaml", "run"),
        ("a\nb\x1b[31m.yaml", "a-b-31m"),
        ("x" * 200 + ".yaml", "x" * 100),
        (b"m\xfcll.yaml", "m-ll"),
        ("a,b & c.v2.yaml", "a-b-c.v2"),
    ],
)
def test_a_config_without_a_name_is_named_after_its_file(tmp_path, file, name):
    path = tmp_path / os.fsdecode(file)
    path.write_text("dataset: {train: 5}")
    assert config.load(path).name == name


@given(st.text(max_size=300))
def test_a_name_from_any_file_is_one_that_can_be_given(text):
    assert names.checked(names.from_file(text)) and names.checked(names.from_file(f"{text}.yaml"))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/tty", "/proc/self/mem"])
def test_a_device_is_refused_at_once(path):
    with pytest.raises(UserError, match="^cannot read the config .*: give a YAML file$"):
        config.load(path)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UserError, match="not a plain file"):
        config.load(tmp_path / "pipe.yaml")


@pytest.mark.parametrize("path", ["missing.yaml", ".", "a\0b"])
def test_an_unreadable_file(tmp_path, path):
    with pytest.raises(UserError, match="^cannot read the config"):
        config.load(tmp_path / path)
