"""Helpers for tests of commands that draw."""

import inspect
import json

from test_cli import succeed

from cntk_bench.report import style


def watched(request, monkeypatch):
    """The list of figures saved from now on, if the test has a parameter `saved`; otherwise none is drawn."""
    figures = []
    if "saved" in inspect.signature(request.function).parameters:
        from matplotlib.figure import Figure

        save = Figure.savefig
        monkeypatch.setattr(
            Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))
        )
    else:
        monkeypatch.setattr(style, "save", lambda *_: [])
    return figures


def as_json(*arguments):
    """What a command prints as JSON."""
    return json.loads(succeed(*arguments, "--format", "json"))


def network(values):
    """A finite network's curve whose lists all have the same values."""
    keys = ("time", "train_loss", "test_loss", "test_accuracy")
    return dict.fromkeys(keys, values) | {"label": "a"}
