"""Dask's scheduler and its certificates with clocks that are wrong, or set while it runs."""

import asyncio
import time
from datetime import datetime
from types import SimpleNamespace

import pytest

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'cntk-bench[cluster]'")

import distributed
from cryptography import x509

from cntk_bench.executors import certificates, scheduler


@pytest.mark.parametrize("kind", [scheduler.Scheduler, distributed.Scheduler])
@pytest.mark.parametrize(
    ("set_by", "silent", "lost"),
    [(3 * 86400.0, 0.0, False), (-18000.0, 0.0, False), (0.0, 1000.0, True), (-18000.0, 1000.0, True)],
)
def test_a_clock_that_is_set_kills_no_worker_and_hides_none_that_is_silent(
    monkeypatch, kind, set_by, silent, lost
):
    """Dask's own scheduler must be misled by a clock set forwards or back; else ours is not needed."""
    passed = {"set": 0.0, "silent": 0.0}
    clocks = SimpleNamespace(
        time=lambda: time.time() + passed["set"] + passed["silent"],
        monotonic=lambda: time.monotonic() + passed["silent"],
    )
    monkeypatch.setattr(scheduler, "time", clocks)
    monkeypatch.setattr("distributed.scheduler.time", clocks.time)

    async def remaining():
        async with kind(port=0, dashboard=False, protocol="inproc://") as one:
            async with distributed.Worker(one.address, heartbeat_interval="1h"):
                one.worker_ttl = 300
                passed.update(set=set_by, silent=silent)
                gone = []
                monkeypatch.setattr(one, "restart_workers", lambda workers, **_: done(gone.extend(workers)))
                await one.check_worker_ttl()
                return bool(gone)

    async def done(_):
        pass

    misled = kind is distributed.Scheduler and set_by * (1 if lost else -1) < 0
    assert asyncio.run(remaining()) == (lost != misled)


def test_certificates_are_valid_whatever_the_time_is():
    made, other = certificates.made(), certificates.made()
    found = x509.load_pem_x509_certificate(made.tls_scheduler_cert.encode())
    assert found.not_valid_before_utc.replace(tzinfo=None) < datetime(1971, 1, 1)
    assert found.not_valid_after_utc.replace(tzinfo=None) > datetime(2100, 1, 1)
    assert made.require_encryption and made.tls_worker_key != other.tls_worker_key
