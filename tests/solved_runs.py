"""Run directories with solves that were never computed: tests choose the predictions."""

import numpy as np

from cntk_bench.records import record, solves
from cntk_bench.records.cells import stem
from cntk_bench.records.directory import Run
from cntk_bench.runs.export import npz
from cntk_bench.system.files import write_atomic

M = 60


def truth(m=M, classes=10):
    """Labels of the test images, in the order of the data set."""
    return np.random.default_rng(0).integers(0, classes, m)


def right(share, m=M, seed=1):
    """Predictions, in the order of the data set, of which about this share is correct."""
    rng, y = np.random.default_rng(seed), truth(m)
    return np.where(rng.random(m) < share, y, (y + 1) % 10)


def facts(index, name="digits", n_train=30, **more):
    data = {"name": name, "n_train": n_train, "n_test": len(index), "classes": 10}
    data |= {
        "preprocess": "standardize",
        "statistics": "full",
        "train_index": " ".join(map(str, range(n_train))),
    }
    data |= {"test_index": " ".join(map(str, index))} | more
    return data | {"fingerprint": repr(sorted(data.items()))}


def solved(path, cells, index=None, settings=None, data=None, **stage):
    """Add a solve to the run at a path, and return its number.

    cells : (column, depth) -> predictions in the order of the data set, (m,) or (r, m); or these and facts.
    index : the run's order of the test images, as places in the data set; by default 0, 1, 2, ...
    """
    index = np.arange(M) if index is None else np.asarray(index)
    data, run = facts(index, **(data or {})), Run(path)
    if not path.exists():
        path.mkdir(parents=True)
        record.save(record.start(path.name, data), run.record)
    asked = {"dataset": {"seed": 0, "order": "balanced"}, "solve": {"ridge": 0.0, "normalize": "none"}}
    for section, values in (settings or {}).items():
        asked[section] = asked.get(section, {}) | values
    found = (
        record.stage("solve", asked) | {"seconds": 1.0, "precision": "float64", "solver": "cholesky"} | stage
    )
    solutions, y = [], truth(M)[index]
    with solves.new_solve(run, {"once": len(solves.numbers(run))}) as folder:
        for (column, depth), value in cells.items():
            predicted, more = value if isinstance(value, tuple) else (value, {})
            predicted = predicted[..., index]
            arrays = {"predicted": predicted, "y_test": y}
            arrays |= {name: more.pop(name) for name in ("draw", "repeat") if name in more}
            share = float((predicted == y).mean())
            solutions.append(
                {"column": column, "depth": depth, "accuracy": 100 * share, "ridge": 0.0, "loo_error": 0.1}
                | {"standard_error": 100 * (share * (1 - share) / len(y)) ** 0.5, "trusted": True}
                | more
            )
            write_atomic(folder / f"{stem(column, depth)}.npz", npz(arrays))
        whole = record.plain(found | {"data": data, "solutions": solutions})
        return solves.publish(run, folder, whole, lambda past, folder: None)["solve"]
