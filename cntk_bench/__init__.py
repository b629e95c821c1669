"""Exact convolutional neural tangent kernels, and what they score.

Rooms, from the bottom up: `text`, `files`, `lock` and `interruption` deal with the surroundings; `spec`
says what is computed, `reference` defines it in float64; `backends` compute it fast; `tiles`,
`journal`, `store` and `gramian` keep a Gram matrix on disk and resume it, and `verification` audits it;
`data` loads images; `ridge` solves, where `placement` finds room; `config`, `record` and `report` are
what a run reads and leaves behind, in the directory that `run` describes; `pipeline` is one
experiment, and `cli` the command line.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cntk_bench.errors import UserError
    from cntk_bench.gramian import gram
    from cntk_bench.spec import Readout

__version__ = "0.1.0"
__all__ = ["Readout", "UserError", "gram"]


# Only when they are asked for: `gram` brings Numba and Zarr, and the command line has to look after
# Ctrl-C before NumPy is imported.
def __getattr__(name):
    if name == "gram":
        from cntk_bench.gramian import gram as found
    elif name == "Readout":
        from cntk_bench.spec import Readout as found
    elif name == "UserError":
        from cntk_bench.errors import UserError as found
    else:
        raise AttributeError(f"module 'cntk_bench' has no attribute {name!r}")
    return found
