"""Sections of the YAML for analyses of their own: what `converge` is asked."""

from typing import Annotated, Literal

from pydantic import Field, StrictFloat, StrictInt, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from cntk_bench.columns import Section


class Converge(Section):
    """Finite networks beside their limit: which, how many, and what is measured."""

    kinds: tuple[Literal["V", "GAP", "FC"], ...] = Field(
        ("V", "GAP", "FC"), min_length=1, description="a list of different ones of V, GAP and FC"
    )
    depths: tuple[Annotated[StrictInt, Field(ge=2, le=100)], ...] = Field(
        (4,), min_length=1, description="a list of different integers of at least 2, such as [3, 4]"
    )
    widths: tuple[Annotated[StrictInt, Field(ge=1, le=2**20)], ...] = Field(
        (32, 64, 128, 256),
        min_length=2,
        description="a list of at least two different integers of at least 1, such as [32, 64, 128]",
    )
    seeds: Annotated[StrictInt, Field(ge=1, le=100_000)] = Field(
        10, description="the number of networks of each width, an integer of at least 1"
    )
    trained: Annotated[StrictInt, Field(ge=0, le=100_000)] = Field(
        10, description="how many of them are trained, too, and have kappa measured, an integer of at least 0"
    )
    images: Annotated[StrictInt, Field(ge=2, le=10_000)] = Field(
        16, description="the number of training images, an integer of at least 2"
    )
    outputs: Annotated[StrictInt, Field(ge=1, le=10_000)] = Field(
        1, description="an integer of at least 1: the outputs are of the first classes"
    )
    beta: Annotated[StrictFloat, Field(ge=0, le=1000, allow_inf_nan=False)] = Field(
        0.0, description="the factor of FC's biases, a number of at least 0"
    )
    steps: Annotated[StrictInt, Field(ge=0, le=10**7)] = Field(
        50, description="steps of gradient descent, an integer of at least 1, or 0 for no training"
    )
    rate: Annotated[StrictFloat, Field(gt=0, lt=2, allow_inf_nan=False)] = Field(
        0.2, description="a number above 0 and below 2, in units of one over the largest eigenvalue"
    )
    iterations: Annotated[StrictInt, Field(ge=0, le=10**6)] = Field(
        50, description="at most that many power iterations, at least 1, or 0 for no kappa"
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="float32 or float64")
    memory: Annotated[StrictFloat, Field(gt=0, le=2**20, allow_inf_nan=False)] = Field(
        1.0, description="the GiB of memory that gradients may take, a number above 0"
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
            raise PydanticCustomError("told", "{reason}", {"reason": reason})
        return depths
