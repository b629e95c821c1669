"""The small-data protocol of Arora et al. 2019b, on the data sets that scikit-learn ships.

    python scripts/uci.py --output results          # some minutes on two cores; needs no network

Arora, Du, Li, Salakhutdinov, Wang, Yu, "Harnessing the Power of Infinitely Wide Deep Nets on Small-data
Tasks" (arXiv:1910.01663), section 5: fully connected NTKs without bias, of depth L <= 5, whose first 0 .. L -
1 layers are fixed, in a support vector machine with C in 10^-2 .. 10^4. Kernel and C are chosen by accuracy
on one split, half of the examples against the other half; then the accuracy is that of 4 folds. So the
examples that test are among those that choose: that is the protocol, and it flatters every classifier that
has choices.

What is this script's own: the data sets (the paper has 90 of the UCI repository); splits are stratified, and
repeated with `--seeds` of them, as one split of 150 examples says little; features are standardised over the
whole data set, as those of the UCI collection were; every kernel is scaled to a mean diagonal of one, so that
C means the same for each (how the authors scaled theirs was not verified). The Gaussian kernel's gamma is
chosen along with C, among 2^-15, 2^-13 .. 2^3 (Hsu, Chang, Lin 2003).

Of several classifiers on several data sets, as in the paper: the mean accuracy; P90 and P95, the share of
data sets on which one reaches 90 or 95 % of the best one's accuracy; the mean of its rank (Friedman), 1 being
the best.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn import datasets
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.svm import SVC

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cntk_bench import Readout, gram  # noqa: E402
from cntk_bench.records import provenance  # noqa: E402
from cntk_bench.system.files import write_atomic  # noqa: E402

DEEPEST, FOLDS = 5, 4
COSTS = tuple(10.0**power for power in range(-2, 5))
GAMMAS = tuple(2.0**power for power in range(-15, 4, 2))
DATA = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}
Kernels = Mapping[str, np.ndarray]


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A data set: x (n, d) float32, each feature standardised (0 where it is constant), and labels (n,)."""
    found = DATA[name]()
    deviation = found.data.std(0)
    x = np.divide(
        found.data - found.data.mean(0), deviation, out=np.zeros_like(found.data), where=deviation > 0
    )
    return x.astype(np.float32), found.target


def ntks(x: np.ndarray) -> Kernels:
    """NTKs of all depths with all numbers of fixed layers, (n, n) float64, simplest first."""
    kinds = [Readout("fc-ntk", "", d, fixed=fixed) for d in range(1, DEEPEST + 1) for fixed in range(d)]
    found = gram(x[:, :, None, None], readouts=kinds, backend="cpu").astype(np.float64)
    return {str(readout): scaled(K) for readout, K in zip(kinds, found, strict=True)}


def gaussians(x: np.ndarray) -> Kernels:
    """Gaussian kernels exp(-gamma |x - z|^2), (n, n)."""
    squares = cdist(x, x, "sqeuclidean")
    return {f"gamma {gamma:g}": np.exp(-gamma * squares) for gamma in GAMMAS}


def scaled(K: np.ndarray) -> np.ndarray:
    """K with a mean diagonal of one."""
    return K / np.diag(K).mean()


def classifiers(x: np.ndarray) -> dict[str, Kernels]:
    """Each classifier's kernels to choose among."""
    ntk = ntks(x)
    last = {f"fc-ntk-{d}" + (f"-f{d - 1}" if d > 1 else "") for d in range(1, DEEPEST + 1)}
    return {
        "NTK": ntk,
        "NTK, all layers trained": {name: K for name, K in ntk.items() if "-f" not in name},
        "NNGP (all but the last layer fixed)": {name: K for name, K in ntk.items() if name in last},
        "Gaussian": gaussians(x),
        "linear": {"fc-ntk-1": ntk["fc-ntk-1"]},
    }


def accuracy(K: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, cost: float) -> float:
    """The accuracy, in percent, of a support vector machine with the precomputed kernel K."""
    machine = SVC(kernel="precomputed", C=cost, cache_size=500).fit(K[np.ix_(train, train)], y[train])
    return 100 * float((machine.predict(K[np.ix_(test, train)]) == y[test]).mean())


def chosen(kernels: Kernels, y: np.ndarray, seed: int) -> tuple[str, float]:
    """The kernel and C that are best when one half trains and the other validates; of equals the first."""
    ((train, validate),) = StratifiedShuffleSplit(1, test_size=0.5, random_state=seed).split(y, y)
    tried = [(name, cost) for name in kernels for cost in COSTS]
    found = [accuracy(kernels[name], y, train, validate, cost) for name, cost in tried]
    return tried[int(np.argmax(found))]


def folded(K: np.ndarray, y: np.ndarray, cost: float, seed: int) -> float:
    """Mean accuracy over the folds, in percent."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(y, y)
    return float(np.mean([accuracy(K, y, train, test, cost) for train, test in folds]))


def protocol(name: str, seeds: Sequence[int]) -> Iterator[dict]:
    """One result for each classifier and seed on a data set."""
    x, y = load(name)
    for classifier, kernels in classifiers(x).items():
        for seed in seeds:
            kernel, cost = chosen(kernels, y, seed)
            yield {
                "data": name,
                "examples": len(x),
                "features": x.shape[1],
                "classes": int(y.max()) + 1,
                "classifier": classifier,
                "seed": seed,
                "kernel": kernel,
                "C": cost,
                "accuracy": folded(kernels[kernel], y, cost, seed),
            }


def summary(table: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Mean accuracy, P90, P95 and mean rank of each classifier, from accuracies (data sets,) in percent."""
    values = np.array(list(table.values()))  # (classifiers, data sets)
    ranks, best = rankdata(-values, axis=0), values.max(0)
    return {
        name: {
            "mean": float(row.mean()),
            "P90": 100 * float((row >= 0.9 * best).mean()),
            "P95": 100 * float((row >= 0.95 * best).mean()),
            "rank": float(rank.mean()),
        }
        for name, row, rank in zip(table, values, ranks, strict=True)
    }


def tabulated(results: Sequence[dict]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Means over seeds and their deviations, classifier -> (data sets,)."""
    names, data = (list(dict.fromkeys(r[key] for r in results)) for key in ("classifier", "data"))
    cells = {
        (c, d): [r["accuracy"] for r in results if (r["classifier"], r["data"]) == (c, d)]
        for c in names
        for d in data
    }
    means = {c: [float(np.mean(cells[c, d])) for d in data] for c in names}
    deviations = {c: [_deviation(cells[c, d]) for d in data] for c in names}
    return means, deviations


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def markdown(record: dict) -> str:
    """The record as a table."""
    results, machine = record["results"], record["machine"]
    means, deviations = tabulated(results)
    sizes = {r["data"]: (r["examples"], r["features"], r["classes"]) for r in results}
    heads = [f"{name} ({n} x {d}, {k} classes)" for name, (n, d, k) in sizes.items()]
    where = f"commit {str(record['commit'])[:7]}, {machine['cores']} cores of {machine['cpu']}"
    lines = [
        "# Support vector machines with fully connected NTKs on small data",
        "",
        f"`python scripts/uci.py` at {where}, shared with other programs: {record['seconds']:.0f} s.",
        "The protocol of Arora et al. 2019b (arXiv:1910.01663) on the data sets that scikit-learn ships; the",
        "script's head says what is the paper's and what is not. **Kernel and C are chosen on one split of",
        "the same examples that the folds test, as in the paper.** Accuracy in percent, mean and deviation",
        f"over the seeds of the splits, of which there are {len(record['seeds'])}.",
        "",
        f"| classifier | {' | '.join(heads)} | mean | P90 | P95 | Friedman rank |",
        "|---" * (len(heads) + 5) + "|",
    ]
    for name, row in summary(means).items():
        both = zip(means[name], deviations[name], strict=True)
        cells = [f"{mean:.2f}" + f" ± {deviation:.2f}" * isfinite(deviation) for mean, deviation in both]
        numbers = [f"{row['mean']:.2f}", f"{row['P90']:.0f}", f"{row['P95']:.0f}", f"{row['rank']:.2f}"]
        lines.append(f"| {' | '.join([name, *cells, *numbers])} |")
    last = (
        "Four easy data sets are too few to rank classifiers; their averages cannot be compared with the "
        "paper's, which are over 90."
    )
    return "\n".join([*lines, "", last]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many splits to repeat it with")
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--output", type=Path, help="folder for uci-sklearn.md and uci-sklearn.json")
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: give at least 1")
    if arguments.output:  # now, not after minutes
        try:
            arguments.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(
                f"cannot write to --output {arguments.output} ({error.strerror}): name another folder"
            )
    names = list(dict.fromkeys(arguments.data))
    record = {key: value for key, value in provenance.stamp().items() if key not in ("started", "process")}
    record |= {"seeds": list(range(arguments.seeds)), "results": []}
    started = time.perf_counter()
    for name in names:
        for result in protocol(name, record["seeds"]):
            record["results"].append(result)
            print(
                "{data:14} {classifier:36} seed {seed}: {accuracy:6.2f}  {kernel}, C {C:g}".format(**result)
            )
    record["seconds"] = time.perf_counter() - started
    print("\n" + markdown(record))
    if arguments.output:
        write_atomic(arguments.output / "uci-sklearn.md", markdown(record))
        write_atomic(arguments.output / "uci-sklearn.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
