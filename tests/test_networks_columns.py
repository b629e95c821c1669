"""Columns of trained networks on the command line: trained, resumed, shared, chosen, shown."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402
from trained import call, changed, digests, material, solutions, start, write  # noqa: E402

from cntk_bench import networks  # noqa: E402
from cntk_bench.cli import program  # noqa: E402
from cntk_bench.columns import find  # noqa: E402
from cntk_bench.columns.network import Network  # noqa: E402
from cntk_bench.config import config  # noqa: E402
from cntk_bench.errors import UserError  # noqa: E402
from cntk_bench.report.flow import network_curve  # noqa: E402
from cntk_bench.runs import images, train  # noqa: E402
from cntk_bench.runs.material import jobs  # noqa: E402


@pytest.fixture
def written(tmp_path, monkeypatch):
    return write(tmp_path, monkeypatch)


def test_a_run_trains_and_shows_what_the_networks_score(written):
    shown = call("run", "nets.yaml")
    (solution,) = solutions()
    _, _, some = next(jobs(*material()))
    y_test = images.load(config.load("nets.yaml")).y_test
    by_rate = {
        rate: [100 * np.mean(job.result().predicted == y_test) for job in some if job.recipe.rate == rate]
        for rate in (5, 30)
    }
    best = max(by_rate, key=lambda rate: np.mean(by_rate[rate]))
    assert solution["rate"] == best and solution["chosen_by"] == "test"
    assert solution["accuracy"] == pytest.approx(np.mean(by_rate[best]))
    assert solution["accuracies"] == pytest.approx(by_rate[best])
    assert solution["spread"] == pytest.approx(np.std(by_rate[best], ddof=1))
    assert [c["rate"] for c in solution["candidates"]] == [5, 30]
    assert [c["accuracy"] for c in solution["candidates"]] == pytest.approx(
        [np.mean(by_rate[r]) for r in by_rate]
    )
    reached = [100 * job.result().history[-1][1] for job in some if job.recipe.rate == best]
    assert solution["train_accuracy"] == pytest.approx(np.mean(reached))
    assert solution["initial_loss"] == pytest.approx(_initial_loss(*some[:2]))
    assert "rate: of 2 learning rates, the one that is best on the test images, as in the paper" in shown
    assert "CNN-V: trained networks of width 16" in shown and not Path("runs/nets/gram.zarr").exists()
    assert "4 of 4 trained" in call("status", "runs/nets")
    assert call("verify", "runs/nets") == "4 pieces of training checked, 0 damaged\n"
    other = ["verify", "runs/nets", "--set", "network.seed=9"]
    refused = CliRunner().invoke(program.cli, other, standalone_mode=False)
    assert "can change here" in str(refused.exception)
    stages = json.loads(Path("runs/nets/record.json").read_text())["stages"]
    assert [stage["stage"] for stage in stages] == ["train", "solve", "verify"] and stages[0]["trained"] == 4
    assert stages[0]["settings"]["network"]["width"] == 16
    call("train", "nets.yaml")  # there is nothing left to do, so no stage is recorded
    assert len(json.loads(Path("runs/nets/record.json").read_text())["stages"]) == 3


def _initial_loss(*trials):
    """Mean squared error of the outputs before the first step, over images, classes and trials."""
    data = images.load(config.load("nets.yaml"))
    targets = np.eye(data.classes)[data.y_train] - 0.1
    found = []
    for job in trials:
        net = job.network()
        outputs = net.forward(net.weights(job.recipe.weights_seed), torch.tensor(data.x_train))
        found.append(np.square(outputs.detach().numpy() - targets).mean())
    return np.mean(found)


def test_a_column_can_have_a_kappa_of_its_own(written):
    """The networks are those of the same number without a mapping."""
    call("run", "nets.yaml", *changed("network.kappa={FC-NN: 3, CNN-V: 0.25}"))
    assert solutions()[0]["kappa"] == 0.25
    _, _, mapped = next(jobs(*material()))
    _, _, alone = next(jobs(*material("runs/nets", "network.kappa=0.25")))
    assert [job.folder for job in mapped] == [job.folder for job in alone]
    assert {job.network().kappa for job in mapped} == {0.25}
    _, _, others = next(jobs(*material("runs/nets", "network.kappa=0.05")))
    assert not {job.folder for job in others} & {job.folder for job in mapped}


def test_an_accuracy_counts_no_epoch_before_the_first_step(written):
    """If epochs are fewer than `network.epochs_after`, the accuracy is the mean over all, and says so."""
    few = changed("network.epochs=3", "network.epochs_after=10", "network.rates=[30]", "network.trials=1")
    shown = call("run", "nets.yaml", *few)
    (solution,) = solutions()
    path = Path("runs/nets/solutions/CNN-V-2-curve-rate-30-trial-0.json")
    untrained, *of_epochs = json.loads(path.read_text())["test_accuracy"]
    assert len(of_epochs) == 3 and untrained != pytest.approx(np.mean(of_epochs))
    assert solution["accuracy"] == pytest.approx(np.mean(of_epochs)) and solution["epochs"] == [3]
    assert "and over 3 epochs each" in shown


def test_one_that_learns_all_early_is_counted_for_as_many_epochs_as_ever(written):
    alone = changed("network.rates=[30]", "network.trials=1")
    call("train", "nets.yaml", *alone, *changed("network.epochs=200"))
    _, _, (job,) = next(jobs(*material("runs/nets", "network.rates=[30]", "network.trials=1")))
    reached = job.result().reached
    more = changed(f"network.epochs={reached}", f"network.epochs_after={reached + 5}")
    shown = call("run", "nets.yaml", *alone, *more, "--output", "more")
    assert solutions("more")[0]["epochs"] == [2 * reached + 5]
    assert f"and over {reached + 5} epochs each" in shown


def test_rates_that_are_alike_to_six_digits_are_told_apart(written):
    rates = (20.0, 20.0000001, 30.0)
    asked = changed(f"network.rates={list(rates)}", "network.trials=1")
    call("run", "nets.yaml", *asked)
    curves = sorted(path.name for path in Path("runs/nets/solutions").glob("*-curve-*"))
    assert curves == [f"CNN-V-2-curve-rate-{rate}-trial-0.json" for rate in ("20", "20.0000001", "30")]
    labels = [json.loads((Path("runs/nets/solutions") / name).read_text())["label"] for name in curves]
    assert len(set(labels)) == 3 and labels[1].startswith("CNN-V at depth 2, rate 20.0000001, trial 0")
    assert "3 of 3 trained" in call("status", "runs/nets")
    assert call("verify", "runs/nets") == "3 pieces of training checked, 0 damaged\n"
    results = sorted(Path("runs/nets/networks").glob("*/*/result"))
    assert len(results) == 3
    kept = results[0].read_bytes()
    results[0].unlink()
    assert call("verify", "runs/nets") == "2 pieces of training checked, 0 damaged, 1 not finished yet\n"
    results[0].write_bytes(kept)
    for result in results:
        result.write_bytes(b"")
    done = CliRunner().invoke(program.cli, ["verify", "runs/nets"], standalone_mode=False)
    assert "3 pieces of training checked, 3 damaged" in done.output


def test_curves_have_the_units_of_the_kernels_flow(written):
    call("run", "nets.yaml")
    curve = json.loads(Path("runs/nets/solutions/CNN-V-2-curve-rate-5-trial-1.json").read_text())
    assert curve["label"] == "CNN-V at depth 2, rate 5, trial 1, width 16"
    # Two steps per epoch; each takes the rate times kappa^2 2 / (n k) of time.
    assert curve["time"] == pytest.approx([epoch * 2 * 5 * 0.05**2 * 2 / (30 * 10) for epoch in range(5)])
    _, _, some = next(jobs(*material()))
    job = next(job for job in some if job.label.endswith("rate 5, trial 1"))
    outputs, y_test = job.result().outputs, images.load(config.load("nets.yaml")).y_test
    targets = np.eye(10)[y_test] - 0.1
    assert curve["test_loss"] == pytest.approx([np.square(outputs[e] - targets).mean() for e in range(5)])
    right = [100 * (outputs[e].argmax(1) == y_test).mean() for e in range(5)]
    assert curve["test_accuracy"] == pytest.approx(right)
    loss, accuracy = zip(*job.result().history, strict=True)
    assert curve["train_loss"] == list(loss) and curve["train_accuracy"] == [100 * a for a in accuracy]
    call("run", "nets.yaml", *changed("network.curve=false"), "--output", "plain")
    plain = Path("plain/solutions/CNN-V-2-curve-rate-5-trial-1.json")
    assert json.loads(plain.read_text()) == curve | dict.fromkeys(("test_loss", "test_accuracy"), [None] * 5)
    for file in (plain, Path("runs/nets/solutions/CNN-V-2-curve-rate-5-trial-1.json")):
        assert network_curve(file)["label"] == curve["label"]  # `flow --network` reads both files


def test_what_is_not_trained_is_said_before_anything_is_solved(written):
    call("compute", "nets.yaml")
    told = call("solve", "runs/nets", code=2)
    assert told.startswith(
        "CNN-V at depth 2 is not trained with these settings on these images (4 of 4 pieces"
    )
    assert "run `cntk-bench train CONFIG` first" in told and not list(Path("runs/nets/solves").glob("*"))
    call("train", "nets.yaml")
    call("solve", "runs/nets")
    for override in ("network.width=8", "network.trials=3", "dataset.test=39", "network.rates=[5, 6]"):
        assert "is not trained with" in call("solve", "runs/nets", *changed(override), code=2)
    # Some of the networks suffice.
    call("solve", "runs/nets", *changed("network.choose=train", "network.rates=[30]"))
    assert solutions()[0]["rate"] == 30 and "chosen_by" not in solutions()[0]


def test_other_settings_leave_what_is_trained_alone(written):
    call("train", "nets.yaml")
    before = digests()
    call("train", "nets.yaml", *changed("network.seed=1", "network.trials=1"))
    call("train", "nets.yaml", *changed("network.trials=3"))  # one more trial for each rate
    stages = json.loads(Path("runs/nets/record.json").read_text())["stages"]
    assert [stage["trained"] for stage in stages if stage["stage"] == "train"] == [4, 2, 2]
    assert before.items() <= digests().items()


def test_a_higher_limit_of_epochs_goes_on_and_a_lower_one_is_refused(written):
    five = changed("network.rates=[5]", "network.trials=1")
    call("train", "nets.yaml", *five)
    call("train", "nets.yaml", *five, *changed("network.epochs=7"))
    call("train", "nets.yaml", *five, *changed("network.epochs=7"), "--output", "fresh")
    assert digests() == digests("fresh")
    told = call("train", "nets.yaml", *five, *changed("network.epochs=6"), code=2)
    assert "trained for 7 epochs already, too many for network.epochs = 6: use 7, or 9 and more" in told


def test_the_ways_to_choose(written):
    call("run", "nets.yaml")
    call("solve", "runs/nets", *changed("network.choose=train"))
    (solution,) = solutions()
    best = max(solution["candidates"], key=lambda c: (c["train_accuracy"], -c["train_loss"]))
    assert solution["rate"] == best["rate"] and solution["chosen_by"] == "train"
    assert "the one that is best on the training images" in call("table", "runs/nets")
    shown = call("run", "nets.yaml", *changed("network.choose=validation", "network.validation=0.2"))
    (solution,) = solutions()
    best = max(solution["candidates"], key=lambda c: c["validation_accuracy"])
    assert solution["rate"] == best["rate"] and "best on training images that were held out" in shown
    settings, given = material()
    how = settings.section("network")
    held_out = how.held_out(30)
    assert len(held_out) == 6 == len(set(held_out))
    _, _, (job, *_) = next(jobs(settings, given))
    found = job.images(torch.device("cpu"))
    assert len(found.x) == len(found.labels) == 24 and len(found.others) == 6 + 40
    x, y = given.images()[0], given.y_train
    np.testing.assert_array_equal(found.others[:6].numpy(), x[held_out])
    np.testing.assert_array_equal(found.labels.numpy(), np.delete(y, held_out))
    result = job.result()
    assert result.predicted.shape == (2, 46)
    first = solution["candidates"][0]
    both = [j.result().predicted[:, :6] for j in next(jobs(settings, given))[2][:2]]
    assert first["validation_accuracy"] == pytest.approx(100 * np.mean([p == y[held_out] for p in both]))


def test_networks_that_diverge_are_listed_and_never_averaged(written):
    shown = call("run", "nets.yaml", *changed("network.rates=[5, 1e9]", "network.trials=1"))
    (solution,) = solutions()
    (failure,) = solution["failures"]
    assert (failure["rate"], failure["trial"]) == (1e9, 0) and failure["step"] >= 2 and solution["rate"] == 5
    assert (
        "Networks that failed, left out of all accuracies: CNN-V at depth 2, rate 1e+09, trial 0 (step"
        in shown
    )
    assert "chosen_by" not in solution  # only one rate was left
    assert f"failed at step {failure['step']}" in call("status", "runs/nets")


def test_where_every_network_diverges_there_is_no_accuracy(written):
    done = CliRunner().invoke(
        program.cli, ["run", "nets.yaml", *changed("network.rates=[1e9]")], standalone_mode=False
    )
    assert done.return_value == 2
    (solution,) = solutions()
    assert solution["accuracy"] is None and not solution["trusted"] and len(solution["failures"]) == 2
    shown = call("table", "runs/nets")
    line = next(line for line in shown.splitlines() if line.startswith("    2"))
    assert line.split()[1] == "-"
    assert (
        "- No accuracy: CNN-V at depth 2: there is no accuracy, for every network failed, the first at"
        in shown
    )
    for form in ("csv", "json", "latex", "markdown"):
        call("table", "runs/nets", "--format", form)
    assert call("solves", "runs/nets").splitlines()[1].split()[-1] == "-"
    assert Path("runs/nets/report/accuracy.png").exists()


def test_damage_is_found_and_trained_anew(written, caplog):
    call("run", "nets.yaml")
    before = digests()
    result = sorted(Path("runs/nets/networks").glob("*/*/result"))[0]
    result.write_bytes(result.read_bytes()[:-7] + b"1234567")
    (result.parent / "checkpoint").unlink(missing_ok=True)
    done = CliRunner().invoke(program.cli, ["verify", "runs/nets"], standalone_mode=False)
    assert done.return_value == 1 and "damaged: CNN-V at depth 2, rate" in done.output
    assert "its result is damaged" in call("status", "runs/nets")
    assert "is damaged (its SHA-256 is not that of its content): run" in call("solve", "runs/nets", code=2)
    call("train", "nets.yaml")
    assert "its result is damaged" in caplog.text and "trained anew" in caplog.text
    assert digests() == before


def test_ctrl_c_and_two_processes_change_no_bit(written, monkeypatch):
    """Training is interrupted, then two processes share the rest; compared with one that ran alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes have
    try:
        many = changed("network.rates=[5]", "network.trials=3", "network.epochs=80")
        call("train", "nets.yaml", *many, "--output", "alone")
        process = start("train", "nets.yaml", *many)
        end = time.monotonic() + 100
        while not list(Path("runs/nets/networks").glob("*/*/lock")):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=100)
        assert process.returncode == 130
        assert stderr == "interrupted: what is trained is kept; the same command goes on from there\n"
        both = [start("train", "nets.yaml", *many) for _ in range(2)]
        for process in both:
            _, stderr = process.communicate(timeout=300)
            assert (process.returncode, stderr) == (0, "")
        assert digests() == digests("alone") and len(digests()) == 3
        stages = json.loads(Path("runs/nets/record.json").read_text())["stages"]
        assert sum(stage["trained"] for stage in stages) == 3  # no network was trained by both
        call("solve", "runs/nets")
    finally:
        torch.set_num_threads(threads)


def test_it_stops_at_a_checkpoint_and_another_goes_on(written):
    """Wherever it stops, the state is on disk, and training goes on from there to the same bits."""
    call("train", "nets.yaml", "--output", "alone")
    call("compute", "nets.yaml")
    settings, given = material()
    _, _, some = next(jobs(settings, given))
    for number, job in enumerate(some[:3]):
        job.folder.mkdir(parents=True)
        for _ in range(2):
            looks = iter([*[False] * number, True, True])
            job.do(lambda words: None, lambda looks=looks: next(looks))
            assert (job.folder / "checkpoint").exists() and not job.done().finished
        assert job.done().words.startswith("epoch ") and "epoch" in call("status", "runs/nets")
    call("train", "nets.yaml")
    assert digests() == digests("alone")


def test_a_kill_costs_no_more_than_what_came_after_the_last_checkpoint(written, monkeypatch):
    from cntk_bench.columns import training

    call("train", "nets.yaml", "--output", "alone")
    call("compute", "nets.yaml")
    monkeypatch.setattr(training, "CHECKPOINT", 0)  # so there is a checkpoint after every step
    monkeypatch.setattr(training, "TOLD", 0)
    _, _, some = next(jobs(*material()))
    for dies, job in enumerate(some, 2):
        job.folder.mkdir(parents=True)
        steps = []

        def report(words, dies=dies, steps=steps):
            steps.append(words)
            if len(steps) == dies:
                raise SystemError("killed")

        with pytest.raises(SystemError):
            job.do(report, lambda: False)
        assert (job.folder / "checkpoint").exists() and not job.done().finished
        job.do(steps.append, lambda: False)
        assert len(steps) == 8 + 1  # only the lost step is repeated
    assert digests() == digests("alone")


def test_torch_is_named_where_it_is_missing(written, monkeypatch):
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    for command in ("run", "train"):
        told = call(command, "nets.yaml", code=2)
        assert told == "trained networks need PyTorch: pip install 'cntk-bench[torch]'"
    assert not Path("runs").exists()


def test_too_little_memory_names_what_to_lower(written, monkeypatch):
    from cntk_bench.networks import training

    def lacking(*_):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"
        )

    monkeypatch.setattr(training, "begin", lacking)
    told = call("train", "nets.yaml", code=2)
    assert "does not fit into the memory" in told and "use a smaller network.batch or network.width" in told


def test_a_run_of_other_images_is_refused(written):
    both = changed("kernel.columns=[CNTK-V, CNN-V]")
    call("run", "nets.yaml", *both)
    told = call("train", "nets.yaml", *both, *changed("dataset.seed=1"), code=2)
    assert "holds another computation: its training images are others (seed is 0 there, 1 here)" in told
    assert "nothing" not in told and solutions()[0]["column"] == "CNTK-V"


def test_nothing_to_train(written):
    told = call("train", "nets.yaml", *changed("kernel.columns=[CNTK-V]"), code=2)
    assert told.startswith("CNTK-V: no column here has to be trained: add one, such as CNN-GAP")
    assert not train.needed(config.load("nets.yaml", ("kernel.columns=[CNTK-V]",)))


@pytest.mark.parametrize(
    "override, words",
    [
        ("network.rates=[]", "network.rates is []: expected a list of distinct numbers above 0"),
        ("network.rates=[1, 1]", "expected a list of distinct numbers above 0"),
        ("network.rates=[-1]", "expected a list of distinct numbers above 0"),
        ("network.rates={CNTK-V: [1]}", "or a mapping of such lists by column"),
        ("network.rates={CNN-GAP: [1]}", "network.rates has none for CNN-V: add CNN-V: [...] to it"),
        ("network.kappa=0", "network.kappa is 0: expected a number above 0, the factor of the output, or a"),
        ("network.kappa={CNTK-V: 1}", "network.kappa is {'CNTK-V': 1}: expected a number above 0"),
        ("network.kappa={CNN-GAP: 1}", "network.kappa has none for CNN-V: add CNN-V: ... to it"),
        ("network.momentum=1", "network.momentum is 1: expected a number of at least 0 and below 1"),
        ("network.loss=max", "network.loss is 'max': expected mean or sum"),
        ("network.widht=3", "did you mean network.width?"),
        ("network.choose=best", "expected test, validation or train"),
        (
            "network.epochs=0",
            "network.epochs is 0: expected an integer of at least 1, the maximum number of epochs",
        ),
        ("network.batch=0", "expected an integer of at least 1, or all"),
        ("network.device=tpu", "expected auto, cpu or cuda"),
        ("network.precision=tf32", "network.precision is tf32: only GPUs have it"),
        ("kernel.depths=[1]", "CNN-V has at least 2 layers: depth 1 is impossible"),
    ],
)
def test_impossible_settings(written, override, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert words in call("train", "nets.yaml", *changed(override), code=2)
    assert not Path("runs").exists()


def test_depths_and_defaults():
    with pytest.raises(
        UserError, match="CNN-GAP has at least 3 layers, of which the first and the last are not"
    ):
        find("CNN-GAP").needs(2)
    assert find("FC-NN").needs(2) == () == find("CNN-GAP").needs(3)
    how = Network()
    assert (how.width, how.kappa, how.rates, how.trials, how.epochs_after) == (
        1024,
        0.05,
        (0.1, 1, 10),
        3,
        10,
    )
    assert how.choose == "test" and how.loss == "mean" and how.momentum == 0 and how.precision == "float32"
