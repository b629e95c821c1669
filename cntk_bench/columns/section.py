"""A section of the YAML that a family of columns adds: its keys, their defaults and their checks.

A family writes a class of the section's fields, each with a description that completes "expected ..." in an
error, and makes it a field of `columns.Sections`; another package registers its own under the entry point
group `cntk_bench.sections`. A column reads it by `given.section(name)`.
"""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of the YAML; every key has a default, and an unknown one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
