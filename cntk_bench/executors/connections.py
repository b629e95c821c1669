"""Connections to a Dask scheduler: one that runs already, or our own, with workers on this machine.

Our own scheduler listens on this machine only and requires certificates that exist for one call: on a machine
with several users, anyone who could connect to it could run programs as us.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask
import distributed

from cntk_bench.errors import UserError
from cntk_bench.executors import certificates
from cntk_bench.executors.scheduler import Scheduler
from cntk_bench.executors.workers import Workers
from cntk_bench.system import interruption, libraries
from cntk_bench.system.files import temporary
from cntk_bench.text import one_line, short

CONNECTING = "20s"
HERE = "127.0.0.1"
# Dask's own loggers, silenced: they mostly tell of workers that come and go, which we log ourselves.
NOISY = ("distributed", "distributed.client", "distributed.gc", "tornado.application", "asyncio")

log = logging.getLogger(__name__)


@contextmanager
def settings(workers: Workers) -> Iterator[None]:
    """Set Dask's options in this context: report lost workers at once, drop silent ones, serve no web pages.

    Parameters
    ----------
    workers : Workers
        Only its timeout is used.
    """
    ours = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.scheduler.worker-ttl": f"{workers.timeout:g}s",
        "distributed.scheduler.work-stealing": False,
        "distributed.scheduler.http.routes": [],  # web pages would be served without a certificate
        "distributed.worker.http.routes": [],
        "distributed.comm.timeouts.connect": CONNECTING,
    }
    level = logging.WARNING if log.isEnabledFor(logging.INFO) else logging.CRITICAL
    with dask.config.set(ours), libraries.hushed(NOISY, level):
        yield


@contextmanager
def theirs(address: str) -> Iterator[Any]:
    """Connect a client to the scheduler at an address.

    Raises
    ------
    UserError
        If it cannot be reached.
    """
    try:
        client = _Client(address, timeout=CONNECTING, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"compute.scheduler {short(address)} cannot be reached ({one_line(error, 100)}): give the "
            "address that the scheduler printed, such as tcp://host:8786"
        ) from None
    with client:
        yield client


@contextmanager
def ours(workers: Workers) -> Iterator[Any]:
    """Start a scheduler in this process and a worker process for each place; yield a client.

    Parameters
    ----------
    workers : Workers
        Only its places are used.
    """
    security = certificates.made()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cntk-bench-", dir=temporary()))
        common = {"host": HERE, "protocol": "tls://", "security": security}
        nannies = {
            number: {
                "cls": distributed.Nanny,
                "options": {**common, "nthreads": 2, "memory_limit": 0, "local_directory": folder,
                            "env": dict(place), "silence_logs": logging.CRITICAL},
            }
            for number, place in enumerate(workers.places)
        }  # fmt: skip
        scheduler = {
            "cls": Scheduler,
            "options": {**common, "port": 0, "dashboard": False, "dashboard_address": f"{HERE}:0"},
        }
        stack.enter_context(dask.config.set({"temporary-directory": folder}))
        resource_tracker.ensure_running()  # else the first worker would start it and unmask the signals
        with interruption.blocked():  # a terminal's Ctrl-C must reach only this process
            cluster = distributed.SpecCluster(
                nannies, scheduler, security=security, silence_logs=logging.CRITICAL
            )
        stack.enter_context(cluster)
        yield stack.enter_context(distributed.Client(cluster, security=security, set_as_default=False))


class _Client(distributed.Client):
    def __del__(self) -> None:
        """Do nothing. Our clients are closed, except one that never connected, on which Dask would hang."""
