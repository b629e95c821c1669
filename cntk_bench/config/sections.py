"""Sections of the YAML: images and their preparation, what Slurm is asked, and what `converge` is asked."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationInfo,
    field_validator,
)

from cntk_bench import data
from cntk_bench.columns.section import REASON, Section, as_validation_error, refused
from cntk_bench.config import names
from cntk_bench.errors import UserError
from cntk_bench.system import paths

MOST_IMAGES = 10**9


def _path(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise ValueError
    try:
        return paths.expanded(paths.from_utf8(value))
    except UserError as error:
        raise refused(REASON, error) from None


def _grey_or_colour(channels: int) -> int:
    if channels not in (1, 3):
        raise ValueError
    return channels


Name = Annotated[StrictStr, Field(min_length=1, max_length=200)]
Count = Annotated[StrictInt, Field(ge=1, le=MOST_IMAGES)]
Finite = Annotated[StrictFloat, Field(allow_inf_nan=False)]
Positive = Annotated[StrictFloat, Field(gt=0, le=1e9, allow_inf_nan=False)]


class Dataset(Section):
    """Which images, how many, and how they are prepared."""

    name: StrictStr = Field(
        "digits", min_length=1, max_length=names.MOST, description="the name of a data set, such as digits"
    )
    path: Annotated[str, PlainValidator(_path)] | None = Field(None, description="a file or folder, or null")
    size: Annotated[StrictInt, Field(ge=1, le=4096)] | None = Field(
        None, description="the side of square images in pixels, such as 32, or null for the pictures' own"
    )
    fit: Literal["crop", "pad", "stretch"] = Field("crop", description="crop, pad or stretch")
    channels: Annotated[StrictInt, AfterValidator(_grey_or_colour)] | None = Field(
        None, description="1 for grey levels, 3 for RGB, or null for the pictures' own number"
    )
    labels: Annotated[str, PlainValidator(_path)] | None = Field(
        None,
        description="a table of files and labels, such as labels.csv, or null for one folder per class",
    )
    test_share: Annotated[StrictFloat, Field(gt=0, lt=1, allow_inf_nan=False)] | None = Field(
        None, description="a number between 0 and 1, such as 0.2, or null if there is a test set"
    )
    classes: tuple[Annotated[StrictInt, Field(ge=0, le=MOST_IMAGES)] | Name, ...] | None = Field(
        None,
        min_length=2,
        description="a list of at least two different labels or names, such as [3, 5] or [cat, dog], or null "
        "for all",
    )
    train: Count | None = Field(None, description="an integer of at least 1, or null for all")
    test: Count | None = Field(None, description="an integer of at least 1, or null for all")
    draws: Count = Field(1, description="the number of sets of training images, an integer of at least 1")
    seed: Annotated[StrictInt, Field(ge=0, le=2**63 - 1)] = Field(0, description="an integer of at least 0")
    order: Literal["balanced", "random"] = Field("balanced", description="balanced or random")
    preprocess: StrictStr | tuple[StrictStr, ...] = Field(
        "standardize",
        description="none, a step such as standardize, or a list of them, such as [contrast, zca]",
    )

    @field_validator("name")
    @classmethod
    def _canonical(cls, name: str) -> str:
        return data.canonical(name)

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError
        return classes

    @field_validator("preprocess")
    @classmethod
    def _known(cls, preprocess: Any) -> Any:
        try:
            found = data.steps(preprocess)
        except UserError as error:
            raise refused(REASON, error) from None
        return (
            found[0] if len(found) == 1 else found or "none"
        )  # one spelling, so that equal runs compare equal


class Preprocess(Section):
    """Parameters of the preprocessing. A Gram matrix can grow only while its statistics stay the same."""

    statistics: Literal["full", "subset"] | Annotated[tuple[Finite, ...], Field(min_length=2)] = Field(
        "full",
        description="full, subset, or a list of numbers (the channels' means, then their deviations)",
    )
    zca_regularizer: Positive = Field(
        0.1, description="a number above 0, relative to the mean variance of a pixel"
    )
    contrast_scale: Literal["deviation", "norm"] = Field("deviation", description="deviation or norm")
    contrast_floor: Positive = Field(1e-8, description="a number above 0, in the units of the pixels")


Word = Annotated[StrictStr, Field(min_length=1, max_length=200, pattern=r"^[^\s]+$")]
Line = Annotated[StrictStr, Field(min_length=1, max_length=4000, pattern=r"^[^\x00-\x1f\x7f]+$")]


SECRET = re.compile(r"\bAWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)\s*=")


class Slurm(Section):
    """What a job requests from Slurm; each job is one worker. null leaves a choice to the cluster."""

    partition: Word | None = Field(None, description="the name of a partition, or null")
    account: Word | None = Field(None, description="the name of an account, or null")
    gres: Word | None = Field(None, description="generic resources of a job, such as gpu:1, or null")
    time: Annotated[StrictStr, Field(pattern=r"^(\d+-)?\d{1,3}(:\d{2}){0,2}$")] = Field(
        "01:00:00", description='a time limit in the format of Slurm, in quotes, such as "01:00:00"'
    )
    memory: Annotated[StrictStr, Field(pattern=r"^\d+(\.\d+)?[MGT]B$")] = Field(
        "8GB", description="the memory of a job, such as 16GB"
    )
    cores: Annotated[StrictInt, Field(ge=1, le=10_000)] = Field(
        1, description="the cores of a job, an integer of at least 1"
    )
    interface: Word | None = Field(
        None, description="the network interface through which jobs reach the scheduler, such as ib0, or null"
    )
    environment: tuple[Line, ...] = Field(
        (), description="a list of shell lines to run before the program, such as [module load cuda]"
    )
    directives: tuple[Line, ...] = Field(
        (), description="a list of further options of sbatch, such as [--qos=long]"
    )

    @field_validator("environment", "directives")
    @classmethod
    @as_validation_error
    def _no_secrets(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        if any(map(SECRET.search, lines)):  # not repeated in the message
            raise UserError(
                "compute.slurm: credentials would stand in scripts and records: set them where jobs are "
                "submitted, whose environment sbatch hands on, or keep them in ~/.aws/credentials"
            )
        return lines


class Converge(Section):
    """Finite networks compared with their limit: which ones, how many, and what is measured."""

    kinds: tuple[Literal["V", "GAP", "FC"], ...] = Field(
        ("V", "GAP", "FC"), min_length=1, description="a list of one or more of V, GAP and FC, each once"
    )
    depths: tuple[Annotated[StrictInt, Field(ge=2, le=100)], ...] = Field(
        (4,), min_length=1, description="a list of distinct integers of at least 2, such as [3, 4]"
    )
    widths: tuple[Annotated[StrictInt, Field(ge=1, le=2**20)], ...] = Field(
        (32, 64, 128, 256),
        min_length=2,
        description="a list of two or more distinct integers of at least 1, such as [32, 64, 128]",
    )
    seeds: Annotated[StrictInt, Field(ge=1, le=100_000)] = Field(
        10, description="the number of networks of each width, an integer of at least 1"
    )
    trained: Annotated[StrictInt, Field(ge=0, le=100_000)] = Field(
        10, description="how many of them are trained, and measured for kappa, an integer of at least 0"
    )
    images: Annotated[StrictInt, Field(ge=2, le=10_000)] = Field(
        16, description="the number of training images, an integer of at least 2"
    )
    outputs: Annotated[StrictInt, Field(ge=1, le=10_000)] = Field(
        1, description="the number of outputs, for the first classes, an integer of at least 1"
    )
    beta: Annotated[StrictFloat, Field(ge=0, le=1000, allow_inf_nan=False)] = Field(
        0.0, description="the factor of FC's biases, a number of at least 0"
    )
    steps: Annotated[StrictInt, Field(ge=0, le=10**7)] = Field(
        50, description="the number of gradient descent steps, an integer of at least 1, or 0 for no training"
    )
    rate: Annotated[StrictFloat, Field(gt=0, lt=2, allow_inf_nan=False)] = Field(
        0.2, description="a number above 0 and below 2, in units of 1 / (the largest eigenvalue)"
    )
    iterations: Annotated[StrictInt, Field(ge=0, le=10**6)] = Field(
        50, description="the maximum number of power iterations, at least 1, or 0 for no kappa"
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="float32 or float64")
    memory: Annotated[StrictFloat, Field(gt=0, le=2**20, allow_inf_nan=False)] = Field(
        1.0, description="the memory for gradients in GiB, a number above 0"
    )

    @field_validator("kinds", "depths", "widths")
    @classmethod
    def _distinct(cls, values: tuple) -> tuple:
        if len(set(values)) < len(values):
            raise ValueError
        return values

    @field_validator("depths")
    @classmethod
    def _possible(cls, depths: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if "GAP" in info.data.get("kinds", ()) and min(depths) < 3:
            reason = "GAP trains neither its first nor its last layer: use at least 3"
            raise refused(REASON, reason)
        return depths
