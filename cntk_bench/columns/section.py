"""A section of the YAML that a family of columns adds: its keys, their defaults and their checks.

A family defines a class with the section's keys as fields, each with a description that completes
"expected ..." in an error, and makes it a field of `columns.Sections`; another package registers its own
under the entry point group `cntk_bench.sections`. A column reads it by `inputs.section(name)`.
"""

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat
from pydantic_core import PydanticCustomError

from cntk_bench.errors import UserError
from cntk_bench.regression import LARGEST_RIDGE

Ridge = Annotated[StrictFloat, Field(ge=0, le=LARGEST_RIDGE, allow_inf_nan=False)]
# Type of a key that names ridges, and the description for its errors.
Ridges = Ridge | Literal["loo"] | Annotated[tuple[Ridge, ...], Field(min_length=1)]
RIDGES = "a finite number of at least 0, a list of such numbers (the best by leave-one-out is used), or loo"


class Section(BaseModel):
    """A mapping of the YAML; every key has a default, and an unknown one is an error.

    A subclass has the keys as pydantic's fields, each with a type and a default. A field's description
    completes "expected ..." in the error that names a wrong value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


# pydantic error types: of messages that name the key and the value themselves, and of reasons alone
WHOLE, REASON = "whole", "reason"


def refused(kind: str, reason: object) -> PydanticCustomError:
    """Return what a validator raises: an error of the kind `WHOLE` or `REASON`."""
    return PydanticCustomError(kind, "{reason}", {"reason": str(reason)})


def as_validation_error(check: Callable) -> Callable:
    """Turn a validator's UserError into one of pydantic's, to be reported beside all others of a file."""

    @wraps(check)
    def checked(*given: Any) -> Any:
        try:
            return check(*given)
        except UserError as error:
            raise refused(WHOLE, error) from None

    return checked
