"""Gaussian process regression, by scikit-learn and by GPyTorch: one model, two libraries.

One-hot targets minus 0.1, as k independent outputs that share their hyperparameters:

    f ~ GP(0, c exp(-|x - z|^2 / (2 s^2))),    y = f(x) + noise of variance v

c, s and v are those of the largest log marginal likelihood, summed over the outputs (Rasmussen and Williams,
"Gaussian Processes for Machine Learning", equation 5.8); the class is the argmax of the posterior means,
which are those of kernel ridge regression with ridge v / c. Images come in units of their median distance,
so that s begins at one. Nothing here is random.
"""

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from cntk_bench.columns import distances
from cntk_bench.columns.baseline import notes
from cntk_bench.columns.column import Cell, Given
from cntk_bench.regression.fit import targets
from cntk_bench.text import one_line

SCALES, BANDWIDTHS, NOISES = (1e-3, 1e3), (1e-2, 1e2), (1e-6, 10.0)  # in which c, s and v are looked for
NOISE = 0.1  # where v begins


def sklearn(given: Given) -> Cell:
    """By scikit-learn: L-BFGS on the log marginal likelihood."""
    import warnings

    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    x, unit, blocks = _images(given)
    y = targets(given.y_train, given.classes)
    kernel = ConstantKernel(1.0, SCALES) * RBF(1.0, BANDWIDTHS) + WhiteKernel(NOISE, NOISES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = GaussianProcessRegressor(kernel, alpha=0.0).fit(x, y)
    found = model.kernel_
    low, high = found.bounds.T  # logarithms, as theta
    ends = {"scale": 0, "bandwidth": 1, "noise": 2}
    said = [
        f"{name} is at the {'lower' if found.theta[i] < low[i] + 0.01 else 'upper'} end of its range, "
        f"{np.exp(low[i]):g} to {np.exp(high[i]):g}"
        for name, i in ends.items()
        if not low[i] + 0.01 < found.theta[i] < high[i] - 0.01
    ]
    others = [warning for warning in caught if "close to the specified" not in str(warning.message)]
    said += dict.fromkeys(one_line(warning.message, 100).rstrip(".") for warning in others)
    scores = np.concatenate([model.predict(block) for block in blocks])
    return _cell(
        given,
        scores,
        found(x),
        unit,
        scale=found.k1.k1.constant_value,
        bandwidth=found.k1.k2.length_scale,
        noise=found.k2.noise_level,
        log_marginal_likelihood=float(model.log_marginal_likelihood_value_),
        note=notes(*said),
    )


def gpytorch(given: Given) -> Cell:
    """By GPyTorch: Adam on the log marginal likelihood, by Cholesky factors in float64."""
    import gpytorch as library
    import torch

    how = given.section("baseline")
    x, unit, blocks = _images(given)
    device = "cuda" if given.device == "cuda" and torch.cuda.is_available() else "cpu"
    inputs = torch.tensor(x, device=device)
    outputs = torch.tensor(targets(given.y_train, given.classes).T.copy(), device=device)  # (k, n)

    class Model(library.models.ExactGP):
        def __init__(self, likelihood: Any):
            super().__init__(inputs, outputs, likelihood)
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
        values = _adam(model, likelihood, inputs, outputs, how.adam_steps, how.adam_rate)
        model.eval()
        likelihood.eval()
        with torch.no_grad(), settings.skip_posterior_variances():
            points = [torch.tensor(block, device=device) for block in blocks]
            scores = []
            for output in outputs:  # the library predicts from one vector of targets at a time
                model.set_train_data(targets=output, strict=False)
                scores.append(torch.cat([model(block).mean for block in points]).cpu().numpy())
            covariance = model.kernel(inputs).to_dense().cpu().numpy()
    noise = float(likelihood.noise.detach())
    rising = values[-1] - values[min(len(values) * 9 // 10, len(values) - 2)]
    return _cell(
        given,
        np.stack(scores, 1),
        covariance + noise * np.eye(len(x)),
        unit,
        scale=float(model.kernel.outputscale.detach()),
        bandwidth=float(model.kernel.base_kernel.lengthscale.detach()),
        noise=noise,
        log_marginal_likelihood=values[-1],
        # Adam does not tell whether it has arrived: a rise of a tenth per output changes little.
        note=f"its log marginal likelihood rose by {rising:.3g} in the last tenth of baseline.adam_steps: "
        "raise them"
        if rising > 0.1 * given.classes
        else None,
    )


def _adam(model: Any, likelihood: Any, inputs: Any, outputs: Any, steps: int, rate: float) -> list[float]:
    """Raise the log marginal likelihood; its values before each step and after the last."""
    import torch
    from gpytorch.mlls import ExactMarginalLogLikelihood

    objective = ExactMarginalLogLikelihood(likelihood, model)  # per training image and output
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    values = []
    for step in range(steps + 1):
        optimiser.zero_grad()
        value = objective(model(inputs), outputs).sum()
        values.append(float(value.detach()) * len(inputs))
        if step < steps:
            (-value).backward()
            optimiser.step()
    return values


def _images(given: Given) -> tuple[np.ndarray, float, list[np.ndarray]]:
    """Training vectors (n, d), centred and in units of their median distance; it; test vectors in blocks."""
    train, test = given.images()
    x = distances.flattened(train)
    centre = x.mean(0)
    x -= centre
    unit = distances.median(x)
    return x / unit, unit, [(block - centre) / unit for block in distances.blocks(test)]


def _cell(
    given: Given,
    scores: np.ndarray,
    covariance: np.ndarray,
    unit: float,
    *,
    scale: float,
    bandwidth: float,
    noise: float,
    log_marginal_likelihood: float,
    note: str | None,
) -> Cell:
    """A cell from posterior means (m, k) and the covariance (n, n) of the training targets, with noise."""
    y = targets(given.y_train, given.classes)
    facts = {
        "ridge": noise / scale,
        "scale": scale,
        "bandwidth": bandwidth,
        "noise": noise,
        "median_distance": unit,
        "length": bandwidth * unit,
        "log_marginal_likelihood": log_marginal_likelihood,
        "note": note,
    }
    if np.isfinite(log_marginal_likelihood) and np.isfinite(scores).all():
        inverse = cho_solve(cho_factor(covariance, lower=True), np.eye(len(y)))
        left_out = inverse @ y / inverse.diagonal()[:, None]  # y_i - f_{-i}(x_i)
        facts["loo_error"] = float((left_out**2).mean())
        facts["loo_accuracy"] = float(((y - left_out).argmax(1) == given.y_train).mean())
    else:
        facts["doubt"] = "its log marginal likelihood is not finite: lower baseline.adam_rate"
    return Cell(scores.argmax(1), facts, 0, {"scores": scores})
