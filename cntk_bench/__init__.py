"""Exact convolutional neural tangent kernels, and what they score.

Packages ("rooms"), from the top down; each imports only those below it:

    cli          the command line
    analyses     results beyond a run's table: curves, flows, posteriors, spectra; pages and figures
    comparisons  comparing solves: paired tests, sweeps
    costs        what a computation will cost here
    runs         one experiment's stages: compute, train, solve, verify
    records      a run's directory, its record, its solves
    config       a run's settings: the YAML, read and checked
    columns      the columns of the table: what each needs, and how its cells are filled
    report       what people read: tables, plots, pages
    estimators   the kernels in scikit-learn: a classifier and a regressor
    grams        Gram matrices, tile by tile on disk; computed, resumed, grown, audited
    regression   solving: memory, Cholesky factors, the ridge path; gradient flow, Gaussian processes
    data         images and labels
    networks     finite networks: training, empirical kernels
    backends     where the kernels run: CPU, CUDA
    executors    distribution of tasks to workers, knowing nothing of kernels
    kernels      what is computed, and its definition in float64
    system       the operating system: files, locks, signals, memory
    errors, text errors shown to the user, and formatting of text
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cntk_bench.data.dataset import load as load_images
    from cntk_bench.errors import UserError
    from cntk_bench.estimators import CNTKClassifier, CNTKRegressor
    from cntk_bench.grams import store
    from cntk_bench.grams.direct import diagonal, gram
    from cntk_bench.kernels import definition as reference
    from cntk_bench.kernels.spec import Readout
    from cntk_bench.regression import paired
    from cntk_bench.runs.access import open_run

__version__ = "0.1.0"
__all__ = [
    "CNTKClassifier",
    "CNTKRegressor",
    "Readout",
    "UserError",
    "diagonal",
    "gram",
    "load_images",
    "open_run",
    "paired",
    "reference",
    "store",
]

# Imported on first access: `gram` loads Numba and Zarr, and the command line has to set up its handling of
# Ctrl-C before NumPy is imported.
_PUBLIC = {
    "CNTKClassifier": ("estimators", "CNTKClassifier"),
    "CNTKRegressor": ("estimators", "CNTKRegressor"),
    "Readout": ("kernels.spec", "Readout"),
    "UserError": ("errors", "UserError"),
    "diagonal": ("grams.direct", "diagonal"),
    "gram": ("grams.direct", "gram"),
    "load_images": ("data.dataset", "load"),
    "open_run": ("runs.access", "open_run"),
    "paired": ("regression.paired", None),
    "reference": ("kernels.definition", None),
    "store": ("grams.store", None),
}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cntk_bench' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _PUBLIC[name]
    found = import_module(f"{__name__}.{module}")
    return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
