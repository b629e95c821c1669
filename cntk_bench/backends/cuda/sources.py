"""The CUDA sources in kernels_cuda: which files make a module, and what they are compiled with."""

from cntk_bench.errors import UserError
from cntk_bench.system.resources import folder

# A module of kernels: its files, and the constants that the host defines for them.
_PLANE = (
    *("layout.cuh", "float_float.cuh", "activation.cuh"),
    *("box.cuh", "sums.cuh", "stages.cuh", "plane.cuh"),
)
_OF_PLANES = "P CHANNELS COLUMNS HIDDEN ALL WINDOWS"
MODULES = {
    "deviations": (("layout.cuh", "deviations.cu"), "P CHANNELS COLUMNS PARTS"),
    "diagonal": ((*_PLANE, "diagonal.cu"), f"{_OF_PLANES} TILE BUFFERS MINIMUM"),
    "displacements": ((*_PLANE, "displacements.cu"), f"{_OF_PLANES} WARPS BLOCKS"),
    "readouts": (("readouts.cu",), ""),
    "fully_connected": (("fully_connected.cu",), "SIDE STATES"),
}


def text(module: str) -> str:
    """One module's whole source."""
    return joined(*MODULES[module][0])


def options(module: str, constants: dict[str, int]) -> tuple[str, ...]:
    """Compiler options of a module, which define those of the constants that it uses."""
    defines = (f"-D{name}={constants[name]}" for name in MODULES[module][1].split())
    return ("--use_fast_math", *defines)


def joined(*names: str) -> str:
    """The text of files of kernels_cuda, joined. Not #included: CuPy's cache would miss an edited header."""
    sources = folder("kernels_cuda")
    try:
        return "\n".join(f'#line 1 "{name}"\n{(sources / name).read_text("utf-8")}' for name in names)
    except OSError as error:
        raise UserError(
            f"the CUDA sources are missing from {sources} ({error.strerror}): install cntk-bench again"
        ) from None
