"""Fixtures with an S3 server and a place for a store, and a small store with known content."""

import json

import numpy as np
import pytest
import s3

from cntk_bench.grams import growth, store
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.tiles import Plan
from cntk_bench.system import bucket as buckets
from cntk_bench.system.bucket import Bucket

PLAN = Plan(n_train=12, n_test=6, tile=4, readouts=2)
ASKED = {"readouts": ["a", "b"], "backend": "cpu", "numerics": 1, "dtype": "float32"}


def facts(n_train, n_test):
    both = np.arange(n_train) % 3, np.arange(n_test) % 3
    return ImageFacts(both, both, both)


@pytest.fixture(scope="module")
def server():
    with s3.serving() as url:
        yield url


@pytest.fixture
def direct(server, monkeypatch):
    """Requests go straight to the server."""
    for name, value in s3.environment(server).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def place(direct, request, tmp_path):
    """The URL of a store that does not exist yet."""
    return f"s3://{s3.BUCKET}/{request.module.__name__}/{tmp_path.name}"


@pytest.fixture
def front(server, direct, monkeypatch):
    """A server in front of the real one, whose faults tests can choose."""
    front = s3.Front(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
    monkeypatch.setattr(buckets, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(buckets, "LONGEST_PAUSE", 0.05)
    buckets._client.cache_clear()
    yield front
    front.close()


@pytest.fixture
def bucket(direct, tmp_path):
    return Bucket(f"s3://{s3.BUCKET}/faults/{tmp_path.name}")


def made(bucket, plan=PLAN):
    return growth.ensure(bucket, plan, ASKED, facts(plan.n_train, plan.n_test))


def block_of(tile, plan=PLAN):
    """Each tile's own numbers; with fewer images, a part of them."""
    numbers = np.random.default_rng([len(tile.part), tile.row, tile.col]).standard_normal((2, 4, 4))
    h, w = tile.shape(plan)[1:]
    return numbers.astype(np.float32)[:, :h, :w]


def fill(grams, tiles=None):
    with grams.shared():
        for tile in grams.plan.tiles() if tiles is None else tiles:
            grams.write(tile, block_of(tile, grams.plan))


def whole(bucket):
    """Check that a store, opened anew, has every tile as it was written."""
    grams = store.open(bucket)
    assert grams.progress.missing() == [] and grams.progress.disputed == set()
    for tile in grams.plan.tiles():
        np.testing.assert_array_equal(grams.read(tile), block_of(tile, grams.plan))


def written(bucket):
    """The finished tiles listed in all journals."""
    texts = [bucket.get(one.name)[0].decode() for one in bucket.list("journals")]
    return [json.loads(line)["tile"] for text in texts for line in text.split("\n") if line]


def small(train, test, tile):
    """A config of two columns at one depth, as YAML."""
    return f"""
name: small
dataset: {{name: digits, train: {train}, test: {test}}}
kernel: {{columns: [CNTK-V, CNN-GP-V], depths: [3]}}
compute: {{tile: {tile}, backend: cpu}}
"""
