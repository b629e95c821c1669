# ruff: noqa: F811 (fixtures)
"""Faults of an object server: nothing is lost, no bit changes, and one line says what to mend."""

import configparser
import random
import sys

import pytest
import s3
from toy_store import PLAN, block_of, bucket, direct, fill, front, made, server, whole, written  # noqa: F401

from cntk_bench.config import config
from cntk_bench.errors import UserError
from cntk_bench.grams import store
from cntk_bench.grams.tiles import Tile
from cntk_bench.system import bucket as buckets
from cntk_bench.system import credentials
from cntk_bench.system.bucket import Bucket

pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("obstore", reason="obstore is not installed: pip install 'cntk-bench[cluster]'")


@pytest.mark.parametrize("status", [500, 503])
def test_requests_that_fail_are_made_again(front, bucket, status, faults):
    chosen = random.Random(status)
    front.fault = lambda *_: status if chosen.random() < 0.25 else None
    fill(made(bucket))
    whole(bucket)
    assert front.counts[status] > 15
    faults(f"an S3 server answers {status}", front.counts[status])
    front.fault = lambda *_: None
    assert sorted(written(bucket)) == sorted(map(str, PLAN.tiles()))


def test_a_line_is_sent_after_its_chunks_were_taken(front, bucket):
    """A chunk that cannot be sent at all is never logged."""
    grams, (first, second) = made(bucket), PLAN.tiles()[:2]
    sent = []
    front.fault = lambda method, path, _: sent.append(path) if method == "PUT" else None
    with grams.shared():
        sent.clear()
        grams.write(first, block_of(first))
        *chunks, line = (path.partition(f"{bucket.prefix}/")[2] for path in sent if "/writers/" not in path)
        assert sorted(chunks) == ["train/c.0.0.0", "train/c.1.0.0"] and line.startswith("journals/")
        front.fault = lambda method, path, _: 400 if "/train/c.1" in path else None
        with pytest.raises(UserError, match="is refused"):
            grams.write(second, block_of(second))
    front.fault = lambda *_: None
    assert store.open(bucket).progress.done() == [first] and written(bucket) == [str(first)]


def test_requests_without_an_answer_are_made_again(front, bucket, monkeypatch, faults):
    """The server does what it is asked, but answers too late."""
    monkeypatch.setattr(buckets, "TIMEOUT", 1.0)
    grams = made(bucket)
    front.fault = lambda method, path, number: "late" if number % 30 == 5 else None
    fill(grams)
    whole(bucket)
    assert front.counts["late"] > 1
    faults("an S3 server does what it is asked, and answers too late", front.counts["late"])
    front.fault = lambda *_: None
    assert set(written(bucket)) == set(map(str, PLAN.tiles()))


def test_a_lock_whose_answer_was_lost_is_ours(front, bucket, monkeypatch, faults):
    monkeypatch.setattr(buckets, "TIMEOUT", 1.0)
    first = []

    def fault(method, path, _):
        if method == "PUT" and path.endswith("/lock") and not first:
            first.append(path)
            return "late"

    front.fault = fault
    fill(made(bucket))
    assert first
    faults("an S3 server grants a lock, and answers too late")
    whole(bucket)


def test_answers_that_are_cut_are_read_again(front, bucket, faults):
    fill(made(bucket))
    chosen = random.Random(2)
    front.fault = lambda method, *_: "cut" if method == "GET" and chosen.random() < 0.2 else None
    whole(bucket)
    assert front.counts["cut"] > 3
    faults("an S3 server's answer is cut", front.counts["cut"])


@pytest.mark.parametrize("what", ["/journals/", ""])
def test_a_server_that_is_gone_costs_the_tiles_in_flight(front, bucket, what, monkeypatch, faults):
    faults("an S3 server is gone")
    monkeypatch.setattr(buckets, "RETRIES", 3)
    grams, tiles = made(bucket), PLAN.tiles()
    with pytest.raises(UserError, match=r"now, after 3 retries \(503\).*finished is kept") as told:
        with grams.shared():
            for tile in tiles[:7]:
                grams.write(tile, block_of(tile))
            front.fault = lambda method, path, _: 503 if what in path else None
            grams.write(tiles[7], block_of(tiles[7]))
    assert "\n" not in str(told.value)
    front.fault = lambda *_: None
    again = store.open(bucket)
    assert again.progress.done() == tiles[:7]
    fill(again, again.progress.missing())
    whole(bucket)
    assert sorted(written(bucket)) == sorted(map(str, tiles))


def test_what_cannot_be_read_now_is_not_damaged(front, bucket, monkeypatch):
    monkeypatch.setattr(buckets, "RETRIES", 1)
    grams = made(bucket)
    fill(grams)
    front.fault = lambda method, path, _: 500 if "/train/c." in path else None
    with pytest.raises(store.Unreadable, match="cannot be read now"):
        grams.inspect(Tile("train", 1, 0), 0)
    front.fault = lambda method, path, _: 500 if "/y_train/" in path else None
    with pytest.raises(store.Unreadable, match="y_train cannot be read now"):
        grams.images()


@pytest.mark.parametrize("status", [403, 401, 400])
def test_what_the_server_says_of_credentials_is_not_repeated(front, bucket, status):
    front.fault = lambda *_: status
    front.body = (
        f"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{s3.KEY}</AWSAccessKeyId>"
        f"<StringToSign>AWS4 {s3.SECRET}</StringToSign></Error>"
    ).encode()
    for ask in (bucket.require, bucket.exists, lambda: bucket.put("a", b""), lambda: made(bucket)):
        with pytest.raises(UserError, match=f"is refused .{status}.*mend AWS_ACCESS_KEY_ID") as told:
            ask()
        assert s3.KEY not in repr(told.value) and s3.SECRET not in repr(told.value)
        assert told.value.__cause__ is None and told.value.__suppress_context__
    assert front.counts[status] < 8  # refused at once, without retries


def test_a_clock_that_the_server_does_not_believe_is_named(front, bucket, faults):
    """After a jump of more than a quarter of an hour, the server refuses; credentials are not blamed."""
    faults("an S3 server refuses a clock that was set", 1)
    grams, (first, second) = made(bucket), PLAN.tiles()[:2]
    front.body = b"<Error><Code>RequestTimeTooSkewed</Code><RequestTime>x</RequestTime></Error>"
    refused = r"refuses this machine's clock .403 RequestTimeTooSkewed.: set it; what is finished is kept"
    with pytest.raises(UserError, match=refused) as told:
        with grams.shared():
            grams.write(first, block_of(first))
            front.fault = lambda *_: 403
            grams.write(second, block_of(second))
    assert "AWS_" not in str(told.value)
    front.fault = lambda *_: None
    assert store.open(bucket).progress.done() == [first]


def test_a_bucket_that_is_not_there(front):
    for ask in ("require", "exists"):
        with pytest.raises(UserError, match="there is no bucket nowhere at 127.0.0.1:.*compute.store"):
            getattr(Bucket("s3://nowhere/a"), ask)() or Bucket("s3://nowhere/a").require()
    with pytest.raises(UserError, match="there is no bucket nowhere"):
        Bucket("s3://nowhere/a").put("b", b"")


def test_a_server_that_is_not_there(front, bucket, monkeypatch):
    monkeypatch.setattr(buckets, "RETRIES", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="127.0.0.1:9 cannot be used now, after 2 retries .no connection"):
        bucket.require()


def test_without_credentials_nothing_is_asked(bucket, front, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="nothing says who you are.*AWS_ACCESS_KEY_ID"):
        bucket.require()
    assert not front.counts


def test_credentials_of_standard_files(bucket, front, monkeypatch, tmp_path):
    fill(made(bucket))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setattr(credentials, "RENEWED", 0.0)

    def write(name, section, **entries):
        parser = configparser.ConfigParser()
        parser[section] = entries
        (tmp_path / ".aws").mkdir(exist_ok=True)
        with open(tmp_path / ".aws" / name, "w") as file:
            parser.write(file)

    write("config", "profile lab", region="us-east-1", endpoint_url=front.url)
    write("credentials", "lab", aws_access_key_id="ONE", aws_secret_access_key=s3.SECRET)
    front.keys.clear()
    whole(bucket)
    assert front.keys == {"ONE"}
    grams = store.open(bucket)
    # The credentials change while the store is open.
    write("credentials", "lab", aws_access_key_id="TWO", aws_secret_access_key=s3.SECRET)
    front.keys.clear()
    grams.read(PLAN.tiles()[0])
    bucket.require()
    assert front.keys == {"TWO"}
    (tmp_path / ".aws" / "config").write_text("no section")
    with pytest.raises(UserError, match="config cannot be read: mend it"):
        bucket.require()


@pytest.mark.parametrize(
    "url",
    [f"s3://{s3.KEY}:{s3.SECRET}@kernels/a", "s3://kernels/a?x=1", "https://kernels/a", "s3://kernels", "s3:///a",
     "s3://kernels/../a", "s3://kernels/a b", "s3://kernels//a", ""],
)  # fmt: skip
def test_other_urls_are_refused(url, tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text("compute: {store: s3://kernels/a}\n")
    assert config.load(file).compute.store == "s3://kernels/a"
    with pytest.raises(UserError, match="compute.store.*s3://BUCKET/PREFIX"):
        Bucket(url)
    for asked in (("compute.store", f'"{url}"'), ("compute.stor", url or "x")):
        with pytest.raises(UserError, match="compute.stor") as told:
            config.load(file, ["=".join(asked)])
        assert s3.SECRET not in str(told.value) and s3.KEY not in str(told.value)
    file.write_text(f'compute: {{store: "{url}", workers: 2}}\n')
    with pytest.raises(UserError, match=r"small.yaml line 1: compute.store") as told:
        config.load(file, ["compute.threads=1"])
    assert s3.SECRET not in str(told.value) and s3.KEY not in str(told.value)


def test_without_obstore(bucket, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(UserError, match=r"object stores need obstore.*pip install 'cntk-bench\[cluster\]'"):
        bucket.require()
