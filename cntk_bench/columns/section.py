"""A section of the YAML that a family of columns adds: its keys, their defaults and their checks.

A family writes a class of the section's fields, each with a description that completes "expected ..." in an
error, and makes it a field of `columns.Sections`; another package registers its own under the entry point
group `cntk_bench.sections`. A column reads it by `given.section(name)`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat

from cntk_bench.regression import LARGEST_RIDGE

Ridge = Annotated[StrictFloat, Field(ge=0, le=LARGEST_RIDGE, allow_inf_nan=False)]
# What a key that names ridges may be, and the words of its error.
Ridges = Ridge | Literal["loo"] | Annotated[tuple[Ridge, ...], Field(min_length=1)]
RIDGES = "a finite number of at least 0, a list of such numbers (the best by leave-one-out is taken), or loo"


class Section(BaseModel):
    """A mapping of the YAML; every key has a default, and an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
