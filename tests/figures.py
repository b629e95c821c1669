"""Helpers for tests of commands that draw."""

import inspect
import json

from test_cli import succeed


def watched(request, monkeypatch, modules):
    """The list of figures saved from now on, if the test has a parameter `saved`; otherwise none is drawn."""
    figures = []
    if "saved" in inspect.signature(request.function).parameters:
        from matplotlib.figure import Figure

        save = Figure.savefig
        monkeypatch.setattr(
            Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))
        )
    else:
        for module in modules:
            monkeypatch.setattr(module, "save", lambda path, draw: False)
    return figures


def as_json(*arguments):
    """What a command prints as JSON."""
    return json.loads(succeed(*arguments, "--format", "json"))


def network(values):
    """A finite network's curve whose lists all have the same values."""
    keys = ("time", "train_loss", "test_loss", "test_accuracy")
    return dict.fromkeys(keys, values) | {"label": "a"}
