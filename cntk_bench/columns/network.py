"""Columns of trained networks, whose limits of infinite width are the kernels: CNN-V, CNN-GAP and FC-NN.

As in the paper (Arora et al. 2019, v2, appendix H), several networks (trials) are trained for every rate of
a grid, from different initial weights. A network's accuracy is the mean over the epochs that follow the first
with full training accuracy, a rate's is the mean over its trials, and the best rate is shown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator

from cntk_bench import networks
from cntk_bench.columns.column import Cell, Curve, Inputs, Material
from cntk_bench.columns.section import Section
from cntk_bench.columns.training import Training
from cntk_bench.errors import UserError
from cntk_bench.kernels.spec import Readout
from cntk_bench.networks.folder import Result
from cntk_bench.networks.recipe import Recipe, in_curve
from cntk_bench.text import exact

KINDS = {"CNN-V": "v", "CNN-GAP": "gap", "FC-NN": "fc"}
NAMES = tuple(KINDS)

MOST = 10**9
Count = Annotated[StrictInt, Field(ge=1, le=MOST)]
Rate = Annotated[StrictFloat, Field(gt=0, le=1e15, allow_inf_nan=False)]
Rates = Annotated[tuple[Rate, ...], Field(min_length=1, max_length=100)]
Factor = Annotated[StrictFloat, Field(gt=0, le=1e6, allow_inf_nan=False)]


class Network(Section):
    """How finite networks are built and trained (for details, see `cntk_bench/networks/recipe.py`)."""

    width: Count = Field(1024, description="an integer of at least 1, the channels or units of a layer")
    kappa: Factor | dict[str, Factor] = Field(
        0.05,
        description="a number above 0, the factor of the output, or a mapping of such numbers by column, "
        "such as {CNN-V: 0.005, CNN-GAP: 0.05}",
    )
    beta: Annotated[StrictFloat, Field(ge=0, le=1e6, allow_inf_nan=False)] = Field(
        0.0, description="a number of at least 0, the factor of the biases of FC-NN"
    )
    rates: Rates | dict[str, Rates] = Field(
        (0.1, 1.0, 10.0),
        description="a list of distinct numbers above 0, such as [0.1, 1, 10], or a mapping of such lists "
        "by column, such as {CNN-V: [1], CNN-GAP: [100]}",
    )
    trials: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(3, description="an integer of at least 1")
    batch: Count | Literal["all"] = Field(128, description="an integer of at least 1, or all")
    loss: Literal["mean", "sum"] = Field("mean", description="mean or sum")
    momentum: Annotated[StrictFloat, Field(ge=0, lt=1)] = Field(
        0.0, description="a number of at least 0 and below 1"
    )
    epochs: Count = Field(3000, description="an integer of at least 1, the maximum number of epochs")
    epochs_after: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        10, description="an integer from 1 to 1,000"
    )
    choose: Literal["test", "validation", "train"] = Field(
        "test", description="test, validation or train: the images on which the best rate is chosen"
    )
    validation: Annotated[StrictFloat, Field(gt=0, lt=1)] = Field(
        0.1, description="a number between 0 and 1, the share of training images held out to choose the rate"
    )
    seed: Annotated[StrictInt, Field(ge=0, le=2**63 - 1)] = Field(0, description="an integer of at least 0")
    precision: Literal["float32", "tf32", "bf16"] = Field("float32", description="float32, tf32 or bf16")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda")
    curve: StrictBool = Field(False, description="true or false")

    @field_validator("kappa", "rates")
    @classmethod
    def _by_column(cls, value: Any) -> Any:
        if isinstance(value, dict) and not set(value) <= set(KINDS):
            raise ValueError
        return value

    @field_validator("rates")
    @classmethod
    def _distinct(cls, rates: Any) -> Any:
        for some in rates.values() if isinstance(rates, dict) else [rates]:
            if len(set(some)) < len(some):
                raise ValueError
        return rates

    @field_validator("validation", "momentum")
    @classmethod
    def _finite(cls, value: float) -> float:
        if not np.isfinite(value):
            raise ValueError
        return value

    def kappa_of(self, column: str) -> float:
        """Return kappa of a column; UserError if there is none."""
        return self._of("kappa", column, "...")

    def rates_of(self, column: str) -> tuple[float, ...]:
        """Return the rates of a column; UserError if there are none."""
        return self._of("rates", column, "[...]")

    def _of(self, key: str, column: str, form: str) -> Any:
        values = getattr(self, key)
        if not isinstance(values, dict):
            return values
        if column not in values:
            raise UserError(f"network.{key} has none for {column}: add {column}: {form} to it")
        return values[column]

    def held_out(self, n: int) -> np.ndarray:
        """Return which of n training images are held out to choose the rate, (v,) int64, ascending."""
        if self.choose != "validation":
            return np.empty(0, np.int64)
        count = min(max(1, round(self.validation * n)), n - 1)
        return np.sort(np.random.default_rng([self.seed, n]).permutation(n)[:count])


@dataclass(frozen=True)
class NetworkColumn:
    """Trained networks of one kind.

    Parameters
    ----------
    name : str
        CNN-V, CNN-GAP or FC-NN.
    kind : str
        As for `networks.architecture.Architecture`.
    """

    name: str
    kind: str
    keys = ("network.",)

    def needs(self, depth: int | None) -> tuple[Readout, ...]:
        """No readouts; UserError if the depth (number of layers with weights) is impossible."""
        assert depth is not None  # it has depths
        if depth < (least := networks.LEAST_DEPTH[self.kind]):
            why = ", of which the first and the last are not trained" if self.kind == "gap" else ""
            raise UserError(f"{self.name} has at least {least} layers{why}: depth {depth} is impossible")
        return ()

    def require_training(self, section: Callable[[str], Any]) -> None:
        """As `columns.Trained`."""
        how = section("network")
        how.kappa_of(self.name)
        how.rates_of(self.name)
        networks.require()
        from cntk_bench.networks import device

        device.choose(how.device, how.precision)

    def jobs(self, depth: int, material: Material) -> list[Training]:
        """As `columns.Trained`: a network for each rate and trial."""
        return [job for some in self._by_rate(depth, material).values() for job in some]

    def _by_rate(self, depth: int, material: Material) -> dict[float, list[Training]]:
        how: Network = material.section("network")
        return {
            rate: [
                Training(
                    label=f"{self.name} at depth {depth}, rate {exact(rate)}, trial {trial}",
                    kind=self.kind,
                    depth=depth,
                    kappa=how.kappa_of(self.name),
                    how=how,
                    recipe=Recipe(
                        rate=rate,
                        trial=trial,
                        seed=how.seed,
                        batch=None if how.batch == "all" else how.batch,
                        loss=how.loss,
                        momentum=how.momentum,
                        epochs_after=how.epochs_after,
                        precision=how.precision,
                        curve=how.curve,
                    ),
                    material=material,
                    place=material.folder(self.name, depth),
                )
                for trial in range(how.trials)
            ]
            for rate in how.rates_of(self.name)
        }

    def fill(self, depth: int | None, inputs: Inputs) -> Cell:
        """The predictions of every rate's networks; the one shown is chosen as `network.choose` says."""
        assert depth is not None
        how: Network = inputs.section("network")
        held_out = how.held_out(len(inputs.y_train))
        common: dict[str, Any] = {
            "width": how.width,
            "kappa": how.kappa_of(self.name),
            "trials": how.trials,
            "epochs_after": how.epochs_after,
        }
        if len(held_out):
            common["held_out"] = len(held_out)
        candidates, curves, failures = [], {}, []
        for rate, jobs in self._by_rate(depth, inputs).items():
            sound: dict[int, Result] = {}
            for trial, job in enumerate(jobs):
                result = job.result()
                if result.failure is None:
                    sound[trial] = result
                    curves[f"rate-{exact(rate)}-trial-{trial}"] = _curve(job, result, len(held_out))
                else:
                    failures.append({"rate": rate, "trial": trial, **result.failure})
            if sound:
                candidates.append(_candidate(rate, sound, inputs.y_train[held_out]))
        left_out: dict[str, Any] = {"failures": failures} if failures else {}
        nothing = np.empty((0, 0), np.int64)
        if not candidates:
            first = failures[0]
            doubt = (
                f"there is no accuracy, for every network failed, the first at step {first['step']} "
                f"({first['reason']}); {_remedy(first)}"
            )
            return Cell(nothing, {**common, "doubt": doubt, **left_out}, curves=curves)
        cells = tuple(Cell(c["predicted"], common | c["facts"], repeat=c["repeat"]) for c in candidates)
        chosen: int | None = 0
        if len(cells) > 1:
            by = {"train": _by_training, "validation": _by_validation}.get(how.choose)
            chosen = None if by is None else max(range(len(cells)), key=lambda i: by(cells[i].facts))
            left_out |= {"chosen_by": how.choose}
        return Cell(nothing, left_out, candidates=cells, chosen=chosen, curves=curves)


def _candidate(rate: float, results: dict[int, Result], truth: np.ndarray) -> dict[str, Any]:
    """Collect what one rate's trials predict, and how they trained; `truth`: labels held out (v,)."""
    v = len(truth)
    ends = [result.history[-1] for result in results.values()]
    facts = {
        "rate": rate,
        "initial_loss": float(np.mean([result.history[0][0] for result in results.values()])),
        "train_accuracy": 100 * float(np.mean([accuracy for _, accuracy in ends])),
        "train_loss": float(np.mean([loss for loss, _ in ends])),
        "epochs": [result.epoch for result in results.values()],
        "reached": [result.reached for result in results.values()],
        "devices": sorted({device for result in results.values() for device in result.made["devices"]}),
    }
    if v:
        right = [(result.predicted[:, :v] == truth).mean() for result in results.values()]
        facts["validation_accuracy"] = 100 * float(np.mean(right))
    return {
        "predicted": np.concatenate([r.predicted[:, v:] for r in results.values()]).astype(np.int64),
        "repeat": tuple(trial for trial, r in results.items() for _ in range(len(r.predicted))),
        "facts": facts,
    }


def _remedy(failure: dict[str, Any]) -> str:
    if failure["step"]:
        return "lower network.rates"
    if "zero" in failure["reason"]:  # narrow networks may have no active unit
        return "raise network.width, or use another network.seed"
    return "lower network.kappa, for it was so before training"


def _by_training(facts: Any) -> tuple[float, ...]:
    return facts["train_accuracy"], -facts["train_loss"]


def _by_validation(facts: Any) -> tuple[float, ...]:
    return (facts["validation_accuracy"],)


def _curve(job: Training, result: Result, v: int) -> Curve:
    """Return the points of `in_curve`, and the last; the first v outputs are of images held out."""
    points = [epoch for epoch in range(len(result.history)) if in_curve(epoch)]
    if not result.outputs and points[-1] != result.epoch:
        points.append(result.epoch)
    loss, accuracy = zip(*(result.history[epoch] for epoch in points), strict=True)
    outputs = np.stack([result.outputs[epoch][v:] for epoch in points]) if result.outputs else None
    label = f"{job.label}, width {job.how.width}"
    return Curve(label, [epoch * job.epoch_time() for epoch in points], loss, accuracy, outputs)


def column(name: str) -> NetworkColumn | None:
    """Return the column of trained networks of a name; None if there is none."""
    return NetworkColumn(name, KINDS[name]) if name in KINDS else None
