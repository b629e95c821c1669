"""Device and precision of training; PyTorch's own settings are restored afterwards."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from cntk_bench.errors import UserError
from cntk_bench.text import one_line

# With a smaller workspace, cuBLAS may add in another order each time: PyTorch does not accept that as
# deterministic.
WORKSPACE, ENOUGH = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


def choose(asked: str, precision: str = "float32") -> torch.device:
    """The device for "auto", "cpu" or "cuda"; "auto" is a GPU where there is one.

    Raises
    ------
    UserError
        If there is no such device here, or it has no such precision.
    """
    found = "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"
    if asked == "cuda" and found == "cpu":
        raise UserError(
            "network.device is cuda: PyTorch finds no GPU here: install one built for your driver, or use cpu"
        )
    if precision == "tf32" and found == "cpu":
        raise UserError("network.precision is tf32: only GPUs have it: use float32 or bf16")
    return torch.device(found)


@contextmanager
def fitting(what: str, remedy: str) -> Iterator[None]:
    """Turn a lack of memory into a UserError: `what` does not fit, and the remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        lacking = isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
        if not lacking and "allocate memory" not in str(error):
            raise
        raise UserError(f"{what} does not fit into the memory ({one_line(error, 80)}): {remedy}") from None


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Context in which networks are trained in a precision, with the same bits every time.

    On a GPU this changes PyTorch's settings for the whole process, which are restored at the end.
    """
    if device.type == "cpu":
        with _autocast(device, precision):
            yield
        return
    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    workspace = os.environ.get(WORKSPACE)
    try:
        products.allow_tf32 = convolutions.allow_tf32 = precision == "tf32"
        convolutions.benchmark = False  # it may choose another algorithm each time
        os.environ.setdefault(WORKSPACE, ENOUGH)
        torch.use_deterministic_algorithms(True)
        with _autocast(device, precision):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
        products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark = before
        if workspace is None:
            os.environ.pop(WORKSPACE, None)


def _autocast(device: torch.device, precision: str) -> Any:
    if precision != "bf16":
        return nullcontext()
    # Its cache would keep the weights as they were when they were first used.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
