# ruff: noqa: F811 (fixtures)
"""What `plan` says of an object store, against the requests and bytes that a server counts in a run."""

import re
import shutil
from collections import Counter

import pytest
from test_cli import call
from toy_store import bucket, direct, front, server  # noqa: F401

from cntk_bench import report
from cntk_bench.grams import missing, store, traffic

pytest.importorskip("moto", reason="moto is not installed")
pytest.importorskip("obstore", reason="obstore is not installed: pip install 'cntk-bench[cluster]'")

CONFIG = """
name: small
dataset: {name: digits, train: 24, test: 4}
kernel: {columns: [CNTK-V, CNN-GP-V], depths: [3]}
compute: {tile: 4, backend: cpu, store: "STORE"}
"""
KINDS = {  # kinds of requests, by their path
    "chunk": r"/(train|test)/c\.\d+\.\d+\.\d+",
    "line": r"/journals/.*\.(\d{8})-\1\.jsonl",
    "joined": r"/journals/.*\.\d{8}-\d{8}\.jsonl",
    "sign": r"/writers/",
    "list": r"\?list-type=2",
    "removal": r"\?delete",
}


def counted(front):
    """Requests and bytes up and down, by method and kind, since the last call of this."""
    requests, up, down = Counter(), Counter(), Counter()
    for method, path, sent, received in front.seen:
        kind = next((name for name, form in KINDS.items() if re.search(form, path)), "other")
        requests[method, kind] += 1
        up[method, kind] += sent
        down[method, kind] += received
    front.seen.clear()
    return requests, up, down


def test_the_plan_is_what_a_run_asks_of_the_server(front, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "write", lambda *_: None)  # drawing takes time
    (tmp_path / "small.yaml").write_text(CONFIG.replace("STORE", str(bucket)))
    asked = (tmp_path / "small.yaml", "--output", tmp_path / "run")

    planned = call("plan", *asked, "--set", "solve.solver=cg")
    assert planned.returncode == 0, planned.stderr
    said = dict(re.findall(r"^(\w+(?:, \w+)?) +(.*)$", planned.stdout, re.MULTILINE))
    assert "disk" not in said
    front.seen.clear()
    assert call("compute", *asked).returncode == 0
    requests, up, down = counted(front)
    plan = store.open(bucket).plan
    assert plan.count == 27

    expected = {word: int(number) for number, word in re.findall(r"(\d+) ([A-Z]+)", said["traffic, compute"])}
    puts = sum(requests["PUT", kind] for kind in ("chunk", "line", "joined"))
    assert (puts, requests["PUT", "chunk"], requests["PUT", "joined"]) == (expected["PUT"], 54, 1)
    assert (
        expected["HEAD"]
        <= sum(n for (method, _), n in requests.items() if method == "HEAD")
        <= expected["HEAD"] + 6  # making and opening the store
    )
    assert requests["POST", "removal"] == expected["DELETE"] + 2  # the two are a lock and a sign of life
    # A process knows its own lines without reading them.
    assert requests["GET", "line"] == 0 and "GET" not in expected
    assert requests["PUT", "other"] + requests["GET", "other"] < 60
    sent = sum(up["PUT", kind] for kind in ("chunk", "line", "joined"))
    assert sent == pytest.approx(traffic.computing(missing.whole(plan), 0.0).up, rel=0.02)
    assert sum(up.values()) < sent + 12 * 4096 * 8  # facts about the images come on top

    chunks, others = map(
        int, re.match(r"(\d+) of 68 B, (\d+) others: [\d.]+ KiB in s3://", said["objects"]).groups()
    )
    listed = [one.name for one in bucket.list()]
    assert (
        chunks == sum(bool(re.match(KINDS["chunk"], f"/{name}")) for name in listed) == len(listed) - others
    )

    again = call("plan", *asked)
    assert re.search("^done +27 of these tiles", again.stdout, re.MULTILINE), again.stderr
    assert re.search("^traffic, compute none$", again.stdout, re.MULTILINE)

    front.seen.clear()
    assert call("solve", tmp_path / "run").returncode == 0
    requests, up, down = counted(front)
    assert f"{requests['GET', 'chunk']} GET: " in said["traffic, solve"] and requests["GET", "chunk"] == 54
    assert down["GET", "chunk"] == traffic.reading(plan).down == plan.bytes

    found = []
    for iterations in (2, 5):  # too few to converge
        done = call(
            "solve",
            tmp_path / "run",
            "--set",
            "solve.solver=cg",
            "--set",
            f"solve.iterations={iterations}",
            "--set",
            "kernel.columns=[CNTK-V]",
        )
        assert done.returncode == 2, done.stderr
        shutil.rmtree(tmp_path / "run" / "iterations")  # otherwise the solve would continue there
        found.append(counted(front)[0]["GET", "chunk"])
    each = (found[1] - found[0]) / 3
    assert f"; {each:.0f} GET (1.4 KiB) more for each iteration of each matrix" in said["traffic, solve"]


def test_more_workers_ask_for_more():
    """Each worker reads the others' lines; signs of life and looks at journals grow with time."""
    plan = store.Plan(400, 0, 4, 3)
    one, four = (traffic.computing(missing.whole(plan), 100.0, writers) for writers in (1, 4))
    assert (one.get, four.get) == (0, 3 * plan.count) and one.head == four.head == 3 * plan.count
    assert (one.list, four.list) == (50, 200) and four.put - one.put == 3 * 20 + 3
    assert str(traffic.Traffic(put=1200, list=3)) == "1,200 PUT, 3 LIST"
