"""scikit-learn estimators for the kernels: a classifier and a regressor, for pipelines and searches.

`fit` computes the train x train Gram matrix once, n (n + 1) / 2 pairs of images, however many ridges are
tried on it; predicting m images takes m n pairs. A search over folds and depths repeats this for each fit:
where that is too slow, compute the matrix of all images once (`cntk_bench.gram`, every depth from one pass)
and search with kernel="precomputed".

Errors that the user can fix are ValueErrors here, as everywhere in scikit-learn.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from math import isqrt, prod
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from cntk_bench.data import scaling
from cntk_bench.errors import UserError
from cntk_bench.grams.direct import gram
from cntk_bench.kernels.spec import Readout, is_integer
from cntk_bench.regression import checks, placement, prediction, ridge, sensitivity
from cntk_bench.system import memory
from cntk_bench.system.memory import GIB
from cntk_bench.text import short

BLOCK = 1024  # test images whose kernels are in memory at once
# Names in messages of other modules -> names of the parameters here.
OWN = {
    "solve.ridge": "ridge",
    "x_train": "X",
    "preprocess none": "standardize=False",
    "use --backend cpu": "use backend='cpu'",
}
PRECOMPUTED, FLOATS = "precomputed", (np.float64, np.float32)  # X of another type becomes float64

PARAMETERS = """
    Parameters
    ----------
    kernel : {"ntk", "nngp", "fc-ntk", "fc-nngp", "precomputed"}
        As for `Readout`, as are pool (not used by the fully connected kernels, "fc-"), depth, train, bias
        and flip. "precomputed": X is the Gram matrix itself, (n, n) to fit and (m, n) to predict, and no
        parameters but ridge and kernel_error are used.
    pool : str
        How pixels are pooled: "v", "gap" or "lap:<c>". Beside "v", "gap" and "lap" are slow.
    depth : int
        Number of 3x3 convolutions plus one; of layers of weights in a fully connected network.
    train : {"all", "hidden"}, optional
        Which layers move (NTK); by default the paper's choice for the pool.
    bias : float
        Of fully connected kernels.
    flip : bool
        Whether the kernel is averaged over the mirror image.
    ridge : float, sequence of float, or "loo"
        Relative to the mean diagonal of the Gram matrix. Of several, and by default, the one of least
        leave-one-out squared error; 0 is the paper's.
    backend : {"auto", "cpu", "cuda"}
        Where kernels are computed.
    image_shape : None, "square" or (C, P, P)
        What a row of a two-dimensional X is. None: a vector, an image of one pixel with a channel for each
        feature; "square": a flattened grey image; (C, P, P): an image of this shape, flattened. A
        four-dimensional X (n, C, P, P) says it by itself.
    standardize : bool
        Subtract each channel's mean over the training images, and divide by its deviation, as the paper does.
    kernel_error : float, optional
        Relative error of a precomputed matrix's entries, as a standard deviation; by default that of kernels
        stored in float32, 1.2e-7, which they keep whatever they are multiplied by. What such errors alone
        decide is not fitted: it gets a jitter, or a warning. Only for entries that were computed in float64
        throughout, give a smaller one, such as 1e-12, or 0 for rounding alone.

    Attributes
    ----------
    ridge_ : float
        The ridge chosen.
    loo_error_ : float
        Its leave-one-out mean squared error: of a classifier, over images and classes, against targets that
        are one-hot minus 0.1; of a regressor with one output, in the squared units of y; with several
        outputs, in units of each one's variance: 1 minus the mean of their leave-one-out R^2.
    path_ : list of dict
        What the solver says of every ridge tried (`cntk_bench.regression.fit.Fit`); loo_error is as above,
        residuals of a regressor are in units of each output's standard deviation.
    dual_coef_ : array (n, k)
        The coefficients alpha: the k outputs are f(x) = K(x, `X_fit_`) alpha.
    X_fit_ : array (n, C, P, P), or None
        The training images, standardised; None where the kernel is precomputed.
    shift_, scale_ : array (C, 1, 1), or None
        What is subtracted from images, and what they are divided by.
    image_shape_ : tuple (C, P, P), or None
    n_features_in_ : int
        C P P; n where the kernel is precomputed.
"""


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Raise a UserError as a ValueError."""
    try:
        yield
    except UserError as error:
        raise ValueError(_own(error)) from None


def _own(problem: object) -> str:
    """Reword a message of the solver or the preparation with the names used here (`OWN`)."""
    said = str(problem)
    for name, own in OWN.items():
        said = said.replace(name, own)
    return said


class _KernelRegression(BaseEstimator):
    """Base of both estimators: images, kernels, solutions."""

    def __init__(
        self,
        kernel: str = "ntk",
        pool: str = "v",
        depth: int = 6,
        train: str | None = None,
        bias: float = 0.0,
        flip: bool = False,
        ridge: float | str | Sequence[float] = "loo",
        backend: str = "auto",
        image_shape: str | tuple[int, int, int] | None = None,
        standardize: bool = True,
        kernel_error: float | None = None,
    ):
        self.kernel = kernel
        self.pool = pool
        self.depth = depth
        self.train = train
        self.bias = bias
        self.flip = flip
        self.ridge = ridge
        self.backend = backend
        self.image_shape = image_shape
        self.standardize = standardize
        self.kernel_error = kernel_error

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "dual_coef_")  # which is set last; others are there if a fit fails

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.kernel == PRECOMPUTED
        return tags

    def _rows(self, X: Any) -> tuple[Any, tuple[int, ...] | None]:
        """Return X with a row for each image, and the images' shape if X is four-dimensional, else None."""
        dimensions = X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim
        if self.kernel == PRECOMPUTED or dimensions != 4:
            return X, None
        X = np.asarray(X)
        return X.reshape(len(X), prod(X.shape[1:])), X.shape[1:]

    def _checked(self, X: Any, y: Any, **how: Any) -> tuple[np.ndarray, np.ndarray]:
        """Validate training data; return rows (n, d) and targets, and set `image_shape_`.

        From here on, until the new solution is kept, there is none.
        """
        self.__dict__.pop("dual_coef_", None)
        rows, shape = self._rows(X)
        rows, y = validate_data(self, rows, y, dtype=FLOATS, ensure_min_samples=2, **how)
        self.image_shape_ = None if self.kernel == PRECOMPUTED else self._shape(shape, rows.shape[1])
        return rows, y

    def _shape(self, own: tuple[int, ...] | None, features: int) -> tuple[int, ...]:
        """Return the shape of an image: X's own, or what image_shape makes of a row."""
        if not isinstance(self.standardize, bool | np.bool_):
            raise ValueError(f"standardize is {short(self.standardize)}: use True or False")
        asked = self.image_shape
        if isinstance(asked, str) and asked == "square":
            shape: tuple[int, ...] = (1, isqrt(features), isqrt(features))
        elif asked is None:
            shape = own or (features, 1, 1)
        elif isinstance(asked, Sequence | np.ndarray) and [is_integer(n, 1) for n in asked] == 3 * [True]:
            shape = tuple(map(int, asked))
        else:
            raise ValueError(f"image_shape is {short(asked)}: use None, 'square' or (C, P, P)")
        if prod(shape) != features or (own is not None and shape != own) or shape[1] != shape[2]:
            found = f"images of shape {own}" if own else f"{features} features"
            raise ValueError(
                f"X has {found}, which image_shape {short(asked)} does not fit: use square images"
            )
        return shape

    def _gram(self, rows: np.ndarray, outputs: int) -> np.ndarray:
        """Check the memory, keep the training images, and return their Gram matrix (n, n)."""
        n = len(rows)
        needed = 4 * n**2 + placement.predict(n, classes=outputs, device="cpu", dtype="float64").host
        if needed > (free := memory.available()):
            raise ValueError(
                f"{n:,} training images need {needed / GIB:.1f} GiB, and {free / GIB:.1f} are free: use fewer"
            )
        self.X_fit_ = self.shift_ = self.scale_ = None
        if self.kernel == PRECOMPUTED:
            if rows.shape[1] != n:
                raise ValueError(f"X has shape {rows.shape}: a precomputed kernel is n x n to fit")
            if not checks.is_symmetric(rows):
                raise ValueError("X is not symmetric: a precomputed kernel to fit is K(x_i, x_j), all of it")
            return rows
        assert self.image_shape_ is not None  # None only if precomputed
        images = rows.reshape(n, *self.image_shape_)
        ones = np.ones((images.shape[1], 1, 1))
        self.shift_, self.scale_ = (
            scaling.scaling(images, "standardize") if self.standardize else (0 * ones, ones)
        )
        self.X_fit_ = (images - self.shift_) / self.scale_
        return self._kernels(self.X_fit_)

    def _kernels(self, x: np.ndarray, z: np.ndarray | None = None) -> np.ndarray:
        pool = "" if str(self.kernel).startswith("fc-") else self.pool
        if self.flip and x.shape[-1] == 1 and x.shape[1] > 1:
            raise UserError("flip: vectors have no mirror images: leave it out, or give image_shape")
        readout = Readout(self.kernel, pool, self.depth, self.train, bias=self.bias, flip=self.flip)
        return gram(x, z, readouts=[readout], backend=self.backend)[0]

    def _error(self) -> float:
        """Return the relative error of the kernels: that of float32, unless a precomputed matrix's is given.

        The entries do not show it: a float32 kernel that was divided by a number in float64 looks exact.
        """
        given = self.kernel_error
        if self.kernel != PRECOMPUTED or given is None:
            return sensitivity.KERNEL_ERROR
        number = isinstance(given, Real) and not isinstance(given, bool | np.bool_)
        if not (number and 0 <= given < 1):
            raise ValueError(
                f"kernel_error is {short(given)}: use None, or a number from 0 to below 1, such as 1e-12"
            )
        return max(float(given), float(np.finfo(np.float64).eps))

    def _keep(self, solution: ridge.Solution) -> None:
        """Keep a solution, and warn if it cannot be trusted."""
        self.ridge_, self.loo_error_ = solution.chosen.ridge, solution.chosen.loo_error
        self.path_ = [asdict(fit) for fit in solution.path]
        self.dual_coef_ = solution.alpha  # the last, so that a fit that failed left none
        if solution.chosen.doubt:
            warnings.warn(
                f"not to be trusted: {_own(solution.chosen.doubt)}", ConvergenceWarning, stacklevel=3
            )

    def _outputs(self, X: Any) -> np.ndarray:
        """Return the outputs f(x), an array (m, k), float64."""
        check_is_fitted(self)
        rows, shape = self._rows(X)
        rows = validate_data(self, rows, dtype=FLOATS, reset=False)
        if shape not in (None, self.image_shape_):
            raise ValueError(f"X has images of shape {shape}, and was fitted to {self.image_shape_}")
        found = []
        with _as_value_error():
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                if self.image_shape_ is not None:
                    images = (block.reshape(-1, *self.image_shape_) - self.shift_) / self.scale_
                    block = self._kernels(images, self.X_fit_)
                found.append(prediction.scored(self.dual_coef_, block)[0])
        return np.concatenate(found)


class CNTKClassifier(ClassifierMixin, _KernelRegression):
    __doc__ = f"""Kernel regression on one-hot targets, minus 0.1; the class is the argmax of the outputs.

    There is no `predict_proba`: the outputs are a least-squares fit. Where probabilities are needed,
    `sklearn.calibration.CalibratedClassifierCV` finds them from the outputs of images that were left out.
    Sample weights are not supported.
{PARAMETERS}    classes_ : array (k,)
        The labels; outputs are in their order.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from cntk_bench import CNTKClassifier
    >>> x, y = load_digits(return_X_y=True)
    >>> model = CNTKClassifier(depth=3, image_shape="square").fit(x[:100], y[:100])
    >>> bool(model.score(x[100:200], y[100:200]) > 0.8)
    True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Solve for images X, (n, C, P, P) or (n, d), and labels y, (n,), of at least two classes."""
        rows, y = self._checked(X, y)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        k = len(self.classes_)
        if k < 2:
            raise ValueError(
                f"y has one class, {short(self.classes_.tolist()[0])}: labels of at least two are needed"
            )
        error = self._error()
        with _as_value_error():
            K = self._gram(rows, k)
            self._keep(ridge.solve(K, labels, classes=k, ridge=self.ridge, error=error))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the outputs f(x), (m, k); for two classes the second's minus the first's, (m,)."""
        found = self._outputs(X)
        return found[:, 1] - found[:, 0] if len(self.classes_) == 2 else found

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels (m,)."""
        chosen = self._outputs(X).argmax(1)
        return self.classes_[chosen]


class CNTKRegressor(MultiOutputMixin, RegressorMixin, _KernelRegression):
    __doc__ = f"""Kernel regression on real targets, of one or several outputs.

    Targets are taken as they are, without an intercept, as in kernel ridge regression and Gaussian processes:
    centre them where their mean is large (`sklearn.compose.TransformedTargetRegressor`). Outputs share their
    ridge, and count alike whatever their units. Sample weights are not supported.
{PARAMETERS}    n_outputs_ : int

    Examples
    --------
    >>> import numpy as np
    >>> from cntk_bench import CNTKRegressor
    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> y = x[:, 0] * x[:, 1]
    >>> model = CNTKRegressor(depth=3).fit(x[:50], y[:50])
    >>> bool(model.score(x[50:], y[50:]) > 0.5)
    True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Solve for images X, (n, C, P, P) or (n, d), and targets y, (n,) or (n, k)."""
        rows, y = self._checked(X, y, multi_output=True, y_numeric=True)
        self._flat = y.ndim == 1
        targets = np.asarray(y, np.float64).reshape(len(rows), -1)
        self.n_outputs_ = targets.shape[1]
        error = self._error()
        with _as_value_error():
            K = self._gram(rows, self.n_outputs_)
            self._keep(ridge.regress(K, targets, ridge=self.ridge, error=error))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict outputs (m,), or (m, k) if y had two dimensions."""
        found = self._outputs(X)
        return found[:, 0] if self._flat else found
