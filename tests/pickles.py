"""A pickle that shows whether it was loaded, for tests of files that must not be."""

from pathlib import Path


class Bomb:
    """Leaves a trace when it is loaded."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)
