"""Gaussian process regression, by scikit-learn and by GPyTorch: one model, two libraries.

One-hot targets minus 0.1, as k independent outputs that share their hyperparameters:

    f ~ GP(0, c exp(-|x - z|^2 / (2 s^2))),    y = f(x) + noise of variance v

c, s and v maximise the log marginal likelihood, summed over the outputs (Rasmussen and Williams,
"Gaussian Processes for Machine Learning", equation 5.8); the class is the argmax of the posterior means,
which are those of kernel ridge regression with ridge v / c. Images come in units of their median distance,
so that s begins at one. Nothing here is random.

Convergence is checked independently of the optimiser: at a maximum the derivatives of log p(y) by log c,
log s and log v are zero (equation 5.9 there). `slopes` computes them from either library's covariance, and
`gain` what another step of Fisher's scoring would add.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from cntk_bench.columns import distances
from cntk_bench.columns.baseline import notes
from cntk_bench.columns.column import Cell, Inputs
from cntk_bench.regression.targets import shifted_one_hot
from cntk_bench.text import one_line

SCALES, BANDWIDTHS, NOISES = (1e-3, 1e3), (1e-2, 1e2), (1e-6, 10.0)  # ranges of c, s and v
NOISE = 0.1  # where v begins
NAMES = ("scale", "bandwidth", "noise")
GAIN = 0.1  # of log marginal likelihood per output: a smaller one is negligible


def sklearn(inputs: Inputs) -> Cell:
    """Fit by scikit-learn: L-BFGS on the log marginal likelihood."""
    import warnings

    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    x, unit, blocks = _images(inputs)
    y = shifted_one_hot(inputs.y_train, inputs.classes)
    kernel = ConstantKernel(1.0, SCALES) * RBF(1.0, BANDWIDTHS) + WhiteKernel(NOISE, NOISES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = GaussianProcessRegressor(kernel, alpha=0.0).fit(x, y)
    found = model.kernel_
    low, high = found.bounds.T  # logarithms, as theta
    at_end = [name for i, name in enumerate(NAMES) if not low[i] + 0.01 < found.theta[i] < high[i] - 0.01]
    said = [
        f"{name} is at the {'lower' if found.theta[i] < low[i] + 0.01 else 'upper'} end of its range, "
        f"{np.exp(low[i]):g} to {np.exp(high[i]):g}"
        for name in at_end
        for i in [NAMES.index(name)]
    ]
    others = [warning for warning in caught if "close to the specified" not in str(warning.message)]
    said += dict.fromkeys(one_line(warning.message, 100).rstrip(".") for warning in others)
    scores = np.concatenate([model.predict(block) for block in blocks])
    return _cell(
        inputs,
        scores,
        found(x),
        unit,
        scale=found.k1.k1.constant_value,
        bandwidth=found.k1.k2.length_scale,
        noise=found.k2.noise_level,
        log_marginal_likelihood=float(model.log_marginal_likelihood_value_),
        remedy="scale the images, or leave the column out",
        ends=at_end,
        note=notes(*said),
    )


def gpytorch(inputs: Inputs) -> Cell:
    """Fit by GPyTorch: Adam on the log marginal likelihood, by Cholesky factors in float64."""
    import gpytorch as library
    import torch

    how = inputs.section("baseline")
    x, unit, blocks = _images(inputs)
    device = "cuda" if inputs.device == "cuda" and torch.cuda.is_available() else "cpu"
    images = torch.tensor(x, device=device)
    outputs = torch.tensor(shifted_one_hot(inputs.y_train, inputs.classes).T.copy(), device=device)  # (k, n)

    class Model(library.models.ExactGP):
        def __init__(self, likelihood: Any):
            super().__init__(images, outputs, likelihood)
            self.mean = library.means.ZeroMean()
            self.kernel = library.kernels.ScaleKernel(library.kernels.RBFKernel())

        def forward(self, points: Any) -> Any:
            return library.distributions.MultivariateNormal(self.mean(points), self.kernel(points))

    constraint = library.constraints.GreaterThan(NOISES[0])
    likelihood = library.likelihoods.GaussianLikelihood(noise_constraint=constraint)
    model = Model(likelihood).to(device, torch.float64)
    model.kernel.outputscale, model.kernel.base_kernel.lengthscale, likelihood.noise = 1.0, 1.0, NOISE
    settings = library.settings
    exact = settings.fast_computations(False, False, False), settings.max_cholesky_size(len(x) + 1)
    with exact[0], exact[1]:  # no conjugate gradients, whose starts are random
        likelihood_found = _adam(model, likelihood, images, outputs, how.adam_steps, how.adam_rate)
        model.eval()
        likelihood.eval()
        with torch.no_grad(), settings.skip_posterior_variances():
            points = [torch.tensor(block, device=device) for block in blocks]
            scores = []
            for output in outputs:  # the library predicts from one vector of targets at a time
                model.set_train_data(targets=output, strict=False)
                scores.append(torch.cat([model(block).mean for block in points]).cpu().numpy())
            covariance = model.kernel(images).to_dense().cpu().numpy()
    noise = float(likelihood.noise.detach())
    return _cell(
        inputs,
        np.stack(scores, 1),
        covariance + noise * np.eye(len(x)),
        unit,
        scale=float(model.kernel.outputscale.detach()),
        bandwidth=float(model.kernel.base_kernel.lengthscale.detach()),
        noise=noise,
        log_marginal_likelihood=likelihood_found,
        remedy="raise baseline.adam_steps or change baseline.adam_rate",
        ends=["noise"] if noise < 1.01 * NOISES[0] else [],
    )


def _adam(model: Any, likelihood: Any, inputs: Any, outputs: Any, steps: int, rate: float) -> float:
    """Maximise the log marginal likelihood by Adam, keep the best hyperparameters, and return its value."""
    import torch
    from gpytorch.mlls import ExactMarginalLogLikelihood

    objective = ExactMarginalLogLikelihood(likelihood, model)  # per training image and output
    parameters = list(model.parameters())
    optimiser = torch.optim.Adam(parameters, lr=rate)
    best, kept = -np.inf, [p.detach().clone() for p in parameters]
    for step in range(steps + 1):
        optimiser.zero_grad()
        try:
            value = objective(model(inputs), outputs).sum()
        except RuntimeError:  # GPyTorch's, if the covariance has no Cholesky factor or is not finite
            if step == 0:
                raise
            break
        found = float(value.detach()) * len(inputs)
        if not np.isfinite(found):
            break
        if found > best:
            best, kept = found, [p.detach().clone() for p in parameters]
        if step < steps:
            (-value).backward()
            optimiser.step()
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
    return best


def slopes(
    covariance: np.ndarray, y: np.ndarray, inverse: np.ndarray, scale: float, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return derivatives of the log marginal likelihood by the logarithms of scale, bandwidth and noise.

    Parameters
    ----------
    covariance : array (n, n)
        c exp(-|x - z|^2 / (2 s^2)) + v I.
    y : array (n, k)
        Targets.
    inverse : array (n, n)
        Of the covariance.
    scale, noise : float
        c and v.

    Returns
    -------
    array (3,)
        The derivatives.
    array (3, 3)
        Fisher's information: minus the expectation of the second derivatives.
    """
    own = covariance.copy()
    own[np.diag_indices(len(own))] = scale  # without the noise
    with np.errstate(divide="ignore", invalid="ignore"):
        by_bandwidth = np.where(
            own > 0, -2 * own * np.log(own / scale), 0
        )  # |x - z|^2 / s^2 times the kernel
    alpha, k = inverse @ y, y.shape[1]
    weights = (alpha @ alpha.T - k * inverse) / 2
    first = [(weights * own).sum(), (weights * by_bandwidth).sum(), noise * np.trace(weights)]
    each = [inverse @ own, inverse @ by_bandwidth, noise * inverse]  # C^-1 dC
    return np.array(first), np.array([[k / 2 * (one * other.T).sum() for other in each] for one in each])


def gain(first: np.ndarray, second: np.ndarray, free: Collection[int]) -> float:
    """Estimate what a step of Fisher's scoring would add to the log likelihood: g F^-1 g / 2.

    first, second : of `slopes`.  free : which hyperparameters may move.
    """
    g, information = first[list(free)], second[np.ix_(list(free), list(free))]
    return float(g @ np.linalg.lstsq(information, g, rcond=None)[0]) / 2


def _images(inputs: Inputs) -> tuple[np.ndarray, float, list[np.ndarray]]:
    """Return training vectors (n, d), centred, over their median distance; it; blocks of test vectors."""
    train, test = inputs.images()
    x = distances.flattened(train)
    centre = x.mean(0)
    x -= centre
    unit = distances.median(x)
    return x / unit, unit, [(block - centre) / unit for block in distances.blocks(test)]


def _cell(
    inputs: Inputs,
    scores: np.ndarray,
    covariance: np.ndarray,
    unit: float,
    *,
    scale: float,
    bandwidth: float,
    noise: float,
    log_marginal_likelihood: float,
    remedy: str,
    ends: Collection[str] = (),
    note: str | None = None,
) -> Cell:
    """Make a cell from posterior means (m, k) and the training targets' covariance (n, n), with noise.

    ends : which of `NAMES` are at the end of their range, where no derivative need be zero.
    remedy : what a user can do if the likelihood is not at a maximum.
    """
    y = shifted_one_hot(inputs.y_train, inputs.classes)
    facts: dict[str, Any] = {
        "ridge": noise / scale,
        "scale": scale,
        "bandwidth": bandwidth,
        "noise": noise,
        "median_distance": unit,
        "length": bandwidth * unit,
        "log_marginal_likelihood": log_marginal_likelihood,
    }
    inverse = cho_solve(cho_factor(covariance, lower=True), np.eye(len(y)))
    left_out = inverse @ y / inverse.diagonal()[:, None]  # y_i - f_{-i}(x_i)
    facts["loo_error"] = float((left_out**2).mean())
    facts["loo_accuracy"] = float(((y - left_out).argmax(1) == inputs.y_train).mean())
    first, second = slopes(covariance, y, inverse, scale, noise)
    facts["gain"] = gain(first, second, [i for i, name in enumerate(NAMES) if name not in ends])
    if facts["gain"] > GAIN * inputs.classes:
        more = f"its log marginal likelihood is at no maximum, {facts['gain']:.3g} more are near: {remedy}"
        note = notes(note, more)
    facts["note"] = note
    if not (np.isfinite(log_marginal_likelihood) and np.isfinite(scores).all()):
        facts["doubt"] = f"its log marginal likelihood or its predictions are not finite: {remedy}"
    return Cell(scores.argmax(1), facts, 0, {"scores": scores})
