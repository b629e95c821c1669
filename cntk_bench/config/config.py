"""The settings of a run: the YAML's keys, their defaults, and their checks.

Names that other packages define (data sets in `data`, backends in `backends`) are checked by these
(`mistakes`), so that adding one touches one place.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from cntk_bench import columns
from cntk_bench.columns import Section
from cntk_bench.columns.section import RIDGES, Ridges, as_validation_error
from cntk_bench.config import mistakes, names, source, yaml12
from cntk_bench.config.sections import Converge, Count, Dataset, Preprocess, Slurm
from cntk_bench.errors import UserError
from cntk_bench.executors.workers import TIMEOUT
from cntk_bench.kernels.spec import Readout
from cntk_bench.regression import AUTO, ITERATIONS, ITERATIVE, TOLERANCE
from cntk_bench.report.rows import MOST
from cntk_bench.system import paths
from cntk_bench.system.bucket import Bucket
from cntk_bench.text import short

# Rounding errors and cost grow with depth; the paper's deepest network has 21 layers.
MOST_DEPTH = 10_000


class Kernel(Section):
    """The table's columns and rows."""

    columns: tuple[StrictStr, ...] = Field(
        ("CNTK-V", "CNTK-GAP"), min_length=1, description="a list of columns, such as [CNTK-V, CNTK-GAP]"
    )
    depths: tuple[Annotated[StrictInt, Field(ge=1, le=MOST_DEPTH)], ...] = Field(
        (3, 4, 6, 11, 21), min_length=1, description="a list of integers, such as [3, 4, 6]"
    )

    @field_validator("columns", "depths")
    @classmethod
    @as_validation_error
    def _once(cls, values: tuple, info: ValidationInfo) -> tuple:
        value, times = Counter(values).most_common(1)[0]
        if times > 1:
            raise UserError(f"kernel.{info.field_name} lists {short(value)} twice: list it once")
        return values

    @field_validator("columns")
    @classmethod
    @as_validation_error
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            columns.find(name)  # an unknown column raises
        return names

    @model_validator(mode="after")
    @as_validation_error
    def _possible(self) -> "Kernel":
        cells = len(self.columns) * len(self.depths)
        if cells > MOST:
            raise UserError(f"kernel.columns and kernel.depths make {cells:,} cells: use at most {MOST:,}")
        for column, depth in self.cells:
            columns.find(column).needs(depth)  # an impossible depth raises
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
        None, description="an integer of at least 1, or null for one per GPU or core"
    )
    threads: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = Field(
        None, description="the CPU threads of each worker, an integer of at least 1, or null to detect them"
    )
    timeout: Annotated[StrictFloat, Field(gt=0, le=1e9, allow_inf_nan=False)] = Field(
        TIMEOUT, description="the seconds without a finished tile after which a worker is ended, above 0"
    )
    scheduler: Annotated[StrictStr, Field(min_length=1, max_length=1000)] | None = Field(
        None, description="the address of a Dask scheduler, such as tcp://host:8786, or null to start one"
    )
    store: Annotated[StrictStr, Field(min_length=1, max_length=1000)] | None = Field(
        None,
        description="s3://BUCKET/PREFIX, where the Gram matrices are kept, or null for the run directory",
    )
    slurm: Slurm = Field(Slurm(), description="a mapping")

    @field_validator("store")
    @classmethod
    @as_validation_error
    def _possible(cls, store: str | None) -> str | None:
        if store is not None:
            Bucket(store)  # an impossible URL raises
        return store


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
        description="the memory for solving in GiB, a number above 0, or null for what is free",
    )
    leave_one_out: StrictBool = Field(True, description="true or false")
    tolerance: Annotated[StrictFloat, Field(ge=1e-14, le=0.1, allow_inf_nan=False)] = Field(
        TOLERANCE,
        description="the relative residual at which refined and cg stop, a number from 1e-14 to 0.1",
    )
    iterations: Annotated[StrictInt, Field(ge=1, le=10**6)] = Field(
        ITERATIONS,
        description="the maximum number of iterations of refined and cg, an integer from 1 to 1,000,000",
    )

    @model_validator(mode="after")
    @as_validation_error
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


def load(path: str | Path | None, overrides: Iterable[str] = (), kept: bool = False) -> Config:
    """Read a YAML file and those that it extends (`source`), apply overrides, check everything.

    Parameters
    ----------
    path : path-like or None
        A YAML file; None for the defaults.
    overrides : iterable of str, optional
        Assignments such as "dataset.train=200", their values read as YAML; the last one of a
        key counts.
    kept : bool, optional
        Whether the file is of a computed run, maybe from where other packages were installed: then unknown
        names of data sets, backends, executors and solvers are accepted.

    Returns
    -------
    Config

    Raises
    ------
    UserError
        If the file cannot be read, or keys or values are not possible; all of them are reported.
    """
    found = source.read(path, overrides)
    more = frozenset(map(str, found.raw)) & frozenset(columns.section_names()) - Config.model_fields.keys()
    model, wrong = _with_plugins(more), {}
    try:
        config = model.model_validate(found.raw)
    except ValidationError as error:
        wrong = mistakes.explained(error.errors(include_url=False), found.raw, model)
    except UserError as error:  # from another package's section
        wrong = {"": str(error)}
    if not kept:
        wrong = mistakes.unknown_names(found.raw) | wrong
    if wrong or found.mistakes:
        raise mistakes.together([*found.placed(wrong), *found.mistakes], found.file)
    return config


@cache
def _with_plugins(names: frozenset[str]) -> type[Config]:
    """Return Config with the sections that columns of other packages add, as far as a file has them."""
    more: Any = {
        name: (columns.section(name), Field(columns.section(name)(), description="a mapping"))
        for name in sorted(names)
    }
    return create_model("Config", __base__=Config, **more) if more else Config


def dump(config: Config) -> str:
    """The config as YAML with every key written out; `load` reads it back to an equal Config."""
    fields = config.model_dump(mode="json")
    plain = {name: fields[name] for name in ("name", *section_order(config))}
    for key in ("path", "labels"):
        if plain["dataset"][key] is not None:
            plain["dataset"][key] = paths.to_utf8(plain["dataset"][key])
    return yaml12.write(plain)


def section_order(config: Config) -> list[str]:
    """Names of a config's sections, those of columns last."""
    found = [name for name in type(config).model_fields if name != "name"]
    return sorted(found, key=lambda name: name in columns.section_names())
