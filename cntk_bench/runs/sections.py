"""The sections of the YAML that say which images are used, and how they are prepared."""

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, StrictFloat, StrictInt, StrictStr, field_validator
from pydantic_core import PydanticCustomError

from cntk_bench import data
from cntk_bench.columns import Section
from cntk_bench.errors import UserError
from cntk_bench.runs import names
from cntk_bench.system import paths

MOST_IMAGES = 10**9


def _path(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise ValueError
    try:
        return paths.expanded(paths.from_utf8(value))
    except UserError as error:
        raise PydanticCustomError("told", "{reason}", {"reason": str(error)}) from None


Count = Annotated[StrictInt, Field(ge=1, le=MOST_IMAGES)]
Finite = Annotated[StrictFloat, Field(allow_inf_nan=False)]
Positive = Annotated[StrictFloat, Field(gt=0, le=1e9, allow_inf_nan=False)]


class Dataset(Section):
    """Which images, how many of them, and how they are prepared."""

    name: StrictStr = Field(
        "digits", min_length=1, max_length=names.MOST, description="the name of a data set, such as digits"
    )
    path: Annotated[str, PlainValidator(_path)] | None = Field(None, description="a file or folder, or null")
    classes: tuple[Annotated[StrictInt, Field(ge=0, le=MOST_IMAGES)], ...] | None = Field(
        None,
        min_length=2,
        description="a list of at least two different labels, such as [3, 5], or null for all",
    )
    train: Count | None = Field(None, description="an integer of at least 1, or null for all")
    test: Count | None = Field(None, description="an integer of at least 1, or null for all")
    draws: Count = Field(1, description="an integer of at least 1: draws of so many training images")
    seed: Annotated[StrictInt, Field(ge=0, le=2**63 - 1)] = Field(0, description="an integer of at least 0")
    preprocess: StrictStr | tuple[StrictStr, ...] = Field(
        "standardize",
        description="none, a step such as standardize, or a list of them, such as [contrast, zca]",
    )

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes):
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError
        return classes

    @field_validator("preprocess")
    @classmethod
    def _known(cls, preprocess):
        try:
            found = data.steps(preprocess)
        except UserError as error:
            raise PydanticCustomError("told", "{reason}", {"reason": str(error)}) from None
        return (
            found[0] if len(found) == 1 else found or "none"
        )  # one spelling, so that equal runs compare equal


class Preprocess(Section):
    """What preprocessing takes from the data. A Gram matrix can grow only where that does not change."""

    statistics: Literal["full", "subset"] | Annotated[tuple[Finite, ...], Field(min_length=2)] = Field(
        "full",
        description="full, subset, or a list of numbers (each channel's mean, then each one's deviation)",
    )
    zca_regularizer: Positive = Field(
        0.1, description="a number above 0, relative to the mean variance of a pixel"
    )
    contrast_scale: Literal["deviation", "norm"] = Field("deviation", description="deviation or norm")
    contrast_floor: Positive = Field(1e-8, description="a number above 0, in units of the pixels")
