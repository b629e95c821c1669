"""What a run is asked to do: the YAML's keys, their defaults, and their checks.

Names that other rooms know (data sets in `data`, backends in `backends`) are checked there, so that
adding one touches one place.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PlainValidator,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    create_model,
    model_validator,
)

from cntk_bench import columns
from cntk_bench.columns import Section
from cntk_bench.columns.section import RIDGES, Ridges
from cntk_bench.errors import UserError
from cntk_bench.executors.workers import TIMEOUT
from cntk_bench.kernels.spec import Readout
from cntk_bench.regression import AUTO, ITERATIONS, ITERATIVE, TOLERANCE
from cntk_bench.report.rows import MOST
from cntk_bench.runs import mistakes, names, yaml12
from cntk_bench.runs.sections import Converge, Count, Dataset, Preprocess, Slurm
from cntk_bench.system import paths, resources
from cntk_bench.system.bucket import Bucket
from cntk_bench.system.files import read_plain
from cntk_bench.text import redacted, short

# Rounding errors add up over depth, and a pass costs as many layers: the paper's deepest is 21.
MOST_DEPTH = 10_000


class Kernel(Section):
    """The table's columns and rows."""

    columns: tuple[StrictStr, ...] = Field(
        ("CNTK-V", "CNTK-GAP"), min_length=1, description="a list of columns, such as [CNTK-V, CNTK-GAP]"
    )
    depths: tuple[Annotated[StrictInt, Field(ge=1, le=MOST_DEPTH)], ...] = Field(
        (3, 4, 6, 11, 21), min_length=1, description="a list of integers, such as [3, 4, 6]"
    )

    @model_validator(mode="after")
    def _possible(self) -> "Kernel":
        for key, values in (("columns", self.columns), ("depths", self.depths)):
            value, times = Counter(values).most_common(1)[0]
            if times > 1:
                raise UserError(f"kernel.{key} lists {short(value)} twice: list it once")
        cells = len(self.columns) * len(self.depths)
        if cells > MOST:
            raise UserError(f"kernel.columns and kernel.depths make {cells:,} cells: use at most {MOST:,}")
        for column, depth in self.cells:
            columns.find(column).needs(depth)  # an unknown column or an impossible depth raises
        return self

    @property
    def cells(self) -> tuple[tuple[str, int | None], ...]:
        """(column, depth) of every cell of the table, column by column; None for a column without depths."""
        return columns.cells(self.columns, self.depths)

    @property
    def readouts(self) -> tuple[Readout, ...]:
        """The readouts that the cells need, each once, in the order of `cells`."""
        return columns.readouts(self.cells)


class Compute(Section):
    """How the Gram matrix is computed; no choice here changes what is computed."""

    backend: StrictStr = Field(
        "auto", min_length=1, max_length=names.MOST, description="the name of a backend, such as cpu, or auto"
    )
    tile: Literal["auto"] | Count = Field("auto", description="auto, or an integer of at least 1")
    executor: StrictStr = Field(
        "auto",
        min_length=1,
        max_length=names.MOST,
        description="the name of an executor, such as local or processes, or auto",
    )
    workers: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = Field(
        None, description="an integer of at least 1, or null for one for each GPU or core"
    )
    threads: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = Field(
        None, description="the threads of each worker on a CPU, an integer of at least 1, or null"
    )
    timeout: Annotated[StrictFloat, Field(gt=0, le=1e9, allow_inf_nan=False)] = Field(
        TIMEOUT, description="the seconds after which a worker that finishes no tile is ended, above 0"
    )
    scheduler: Annotated[StrictStr, Field(min_length=1, max_length=1000)] | None = Field(
        None, description="the address of a Dask scheduler, such as tcp://host:8786, or null for one of ours"
    )
    store: Annotated[StrictStr, Field(min_length=1, max_length=1000)] | None = Field(
        None,
        description="s3://BUCKET/PREFIX, where the Gram matrices are kept, or null for the run directory",
    )
    slurm: Slurm = Field(Slurm(), description="a mapping")

    @model_validator(mode="after")
    def _possible(self) -> "Compute":
        if self.store is not None:
            Bucket(self.store)  # an impossible URL raises
        return self


class Solve(Section):
    """How the kernel regression is solved; ridges are relative to the mean diagonal of the Gram matrix."""

    solver: StrictStr = Field(
        AUTO,
        min_length=1,
        max_length=names.MOST,
        description="the name of a solver, such as cholesky, or auto",
    )
    ridge: Ridges = Field(0.0, description=RIDGES)
    normalize: Literal["none", "unit_diagonal"] = Field("none", description="none or unit_diagonal")
    precision: Literal["auto", "float64", "float32"] = Field("auto", description="auto, float64 or float32")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda")
    memory: Annotated[StrictFloat, Field(gt=0, le=2**20, allow_inf_nan=False)] | None = Field(
        None,
        description="the GiB of memory that solving may use, a number above 0, or null for what is free",
    )
    tolerance: Annotated[StrictFloat, Field(ge=1e-14, le=0.1, allow_inf_nan=False)] = Field(
        TOLERANCE,
        description="the relative residual that refined and cg go on to, a number from 1e-14 to 0.1",
    )
    iterations: Annotated[StrictInt, Field(ge=1, le=10**6)] = Field(
        ITERATIONS,
        description="at most that many iterations of refined and cg, an integer from 1 to 1,000,000",
    )

    @model_validator(mode="after")
    def _together(self) -> "Solve":
        no = {
            ("refined", "float64"): "factors in float32: leave out solve.precision, or use cholesky",
            ("cg", "float32"): "adds up in float64: leave out solve.precision, or use refined",
            ("cg", "cuda"): "streams the matrix to the CPU: leave out solve.device, or use refined",
        }
        for value in (self.precision, self.device):
            if (self.solver, value) in no:
                raise UserError(f"solve.solver {self.solver} {no[self.solver, value]}")
        if self.solver in ITERATIVE and self.several:
            raise UserError(
                f"solve.solver {self.solver} solves one ridge: leave-one-out, which chooses among several, "
                "needs the whole factor: give one, such as solve.ridge=1e-4, or use solve.solver=cholesky"
            )
        return self

    @property
    def several(self) -> bool:
        """Whether one of several ridges is to be chosen."""
        return isinstance(self.ridge, str) or isinstance(self.ridge, tuple) and len(set(self.ridge)) > 1


class Config(columns.Sections):
    """One run.

    Parameters
    ----------
    name : str
        Names the run and its directory. Where the file gives none, it comes from the file's own name,
        in which "-" replaces what a name cannot have.
    dataset, preprocess, kernel, compute, solve, converge : Dataset, ..., Converge
        Sections; each may be left out, as may any of their keys. Families of columns add others
        (`columns.Sections`).
    """

    name: Annotated[str, PlainValidator(names.checked)] = Field(
        description="a name of letters, digits, spaces and any of . + - _"
    )
    dataset: Dataset = Field(Dataset(), description="a mapping")
    preprocess: Preprocess = Field(Preprocess(), description="a mapping")
    kernel: Kernel = Field(Kernel(), description="a mapping")
    compute: Compute = Field(Compute(), description="a mapping")
    solve: Solve = Field(Solve(), description="a mapping")
    converge: Converge = Field(Converge(), description="a mapping")

    def section(self, name: str) -> Any:
        """A section that a family of columns added, with its defaults where the file has none."""
        return getattr(self, name, None) or columns.section(name)()

    def sections(self, *names: str) -> dict[str, Any]:
        """Some sections as plain values."""
        return {name: value for name, value in self.model_dump(mode="json").items() if name in names}


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML file, apply overrides, check everything.

    Parameters
    ----------
    path : path-like
        A YAML file.
    overrides : iterable of str, optional
        Assignments such as "dataset.train=200", their values read as YAML; the last one of a
        key counts.

    Returns
    -------
    Config

    Raises
    ------
    UserError
        If the file cannot be read, or a key or value is not possible.
    """
    where = short(str(path), 100)
    try:
        text = read_plain(path, yaml12.MOST_BYTES)
    except OSError as error:
        raise UserError(
            f"cannot read the config {where} ({error.strerror or error}): give a YAML file"
        ) from None
    except ValueError:  # a null character, or one that the locale's encoding does not have
        raise UserError(f"cannot read the config {where}: that cannot be a file's name here") from None
    raw = yaml12.read(text, where)
    if not isinstance(raw, dict):
        raise UserError(
            f"{where} is not a config: expected keys such as 'dataset:', found {mistakes.show(raw)}"
        )
    raw = {"name": names.from_file(str(path))} | raw
    origins = {}  # dotted key -> the override that set it
    for override in map(paths.to_utf8, overrides):
        origin = f"--set {short(redacted(' '.join(override[:100].split())))}"
        key, equals, value = override.partition("=")
        parts = key.split(".")
        odd = not key.isprintable() or " " in key or len(parts) > yaml12.MOST_LEVELS
        if not equals or not all(parts) or odd:
            raise UserError(f"{origin}: expected key=value, such as dataset.train=200")
        if not value.strip():
            raise UserError(f"{origin}: no value is given: write {short(key)}=null for nothing")
        raw = _assign(raw, parts, yaml12.read(value, origin))
        origins[key] = origin
    more = frozenset(map(str, raw)) & frozenset(columns.section_names()) - Config.model_fields.keys()
    model = _with_plugins(more)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        for other in others:  # the branches of a union: one may know more than that it is none of them
            if other["type"] == "less_than_equal" and other["loc"][:2] == first["loc"][:2]:
                first = other
        key, problem = mistakes.explain(first, raw, model)
        raise UserError(f"{mistakes.origin(key, origins) or where}: {problem}") from None
    except UserError as error:
        said = str(error)
        if said.startswith("compute.slurm"):  # an override that has a secret is not repeated
            raise UserError(f"{'--set' if 'compute' in str(origins) else where}: {said}") from None
        key = "solve" if said.startswith("solve.") else "kernel"
        key = "compute.store" if said.startswith("compute.store") else key
        raise UserError(f"{mistakes.origin(key, origins) or where}: {error}") from None


@cache
def _with_plugins(names: frozenset[str]) -> type[Config]:
    """The config with those sections that columns of other packages add, where a file has them."""
    more: Any = {
        name: (columns.section(name), Field(columns.section(name)(), description="a mapping"))
        for name in sorted(names)
    }
    return create_model("Config", __base__=Config, **more) if more else Config


def located(path: Path) -> Path:
    """The path itself; or, where it is the mere name of a config that ships, that file."""
    if path.suffix or len(path.parts) > 1 or path.exists():
        return path
    shipped = resources.folder("configs") / f"{path.name}.yaml"
    return Path(str(shipped)) if shipped.is_file() else path


def dump(config: Config) -> str:
    """The config as YAML with every key written out; `load` reads it back to an equal Config."""
    fields = config.model_dump(mode="json")
    plain = {name: fields[name] for name in sorted(fields, key=lambda name: name in columns.section_names())}
    if plain["dataset"]["path"] is not None:
        plain["dataset"]["path"] = paths.to_utf8(plain["dataset"]["path"])
    return yaml12.write(plain)


def _assign(mapping: Mapping, parts: list[str], value: Any) -> dict:
    """A copy of nested mappings with one value set; what is not a mapping on the way is replaced."""
    head, *rest = parts
    if rest:
        inner = mapping.get(head)
        value = _assign(inner if isinstance(inner, Mapping) else {}, rest, value)
    return {**mapping, head: value}
