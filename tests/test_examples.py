"""Every notebook and script of docs/examples runs at toy size, and agrees with other ways of computing."""

import ast
import json
import re
import runpy
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import nbformat
import numpy as np
import pytest

from cntk_bench import Readout, diagonal, gram, load_images
from cntk_bench.regression import calibration, eigen
from cntk_bench.regression import posterior as gp

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "docs" / "examples"
CLEANER = REPOSITORY / "scripts" / "clean_notebooks.py"

# For each notebook, code that is run after the cell tagged "parameters".
TOY = {
    "own-images": "PER_CLASS, DEPTHS = 10, [3, 4]",
    "svc": "TRAIN, TEST, DEPTHS, FOLDS = 60, 60, [2, 3], 2",
    "coreset": "POOLS, POOL, TEST, COUNTS, DEPTH = 2, 40, 60, [10, 20], 3",
    "uncertainty": "TRAIN, TEST, DEPTH, DRAWS, RESAMPLES = 60, 100, 3, 400, 20",
    "networks": "TRAIN, TEST, WIDTHS, TRIALS, STEPS = 20, 40, [4, 64], 2, 15",
}
NEEDS = {"networks": "torch"}
# And code that is run at its end, which checks its results by other means, the package's own where possible.
ASKED = {
    "svc": """
machine = SVC(kernel="precomputed", C=searches[chosen].best_params_["C"]).fit(kernels[chosen][0], y)
assert ((machine.predict(kernels[chosen][1]) == y_test) == right["SVC, CNTK"]).all()
np.testing.assert_allclose(kernels[2, "cosine"][0].diagonal(), 1)
expected = gram(x_test[:5], readouts=readouts[:1])[0, 0, 0] / own_test[0, 0]
np.testing.assert_allclose(expected, 1, rtol=1e-6)
""",
    "coreset": """
between = cosines(x, x[chosen], own, own[chosen])  # the pool as if it were test images: their features are L
np.testing.assert_allclose(solve_triangular(L[:, chosen], between.T, trans="T"), L, atol=1e-4)
inverse = np.linalg.inv(cosines(x[chosen], x[chosen], own[chosen], own[chosen]))
np.testing.assert_allclose(between @ inverse @ between.T, L.T @ L, atol=1e-4)
np.testing.assert_allclose(1 - (L**2).sum(0).mean(), variance[-1], atol=1e-6)
""",
    "networks": """
alpha = np.zeros_like(Y)
for _ in range(STEPS):
    alpha += STEP * (Y - K @ alpha)
np.testing.assert_allclose(K_test @ alpha, at_end, atol=1e-9 * abs(at_end).max())
""",
    "uncertainty": """
from cntk_bench.regression import calibration, eigen
from cntk_bench.regression import posterior as gp
spectrum = eigen.decompose(K)
assumed = gp.prior(spectrum, Y, ridge)
own_kernels = diagonal(x_test, readouts=KERNEL)[0].astype(float)
across = gram(x_test, x, readouts=KERNEL)[0].astype(float)
found = gp.posterior(spectrum, assumed, gp.coefficients(spectrum, Y, ridge), across, own_kernels)
np.testing.assert_allclose(mean, found.mean, atol=1e-6)
np.testing.assert_allclose(variance, found.variance, rtol=1e-5)
np.testing.assert_allclose([s, noise], [assumed.scale, assumed.noise], rtol=1e-6)
np.testing.assert_allclose(value, assumed.log_likelihood, rtol=1e-6)
assert assumed.log_likelihood >= max(gp.prior(spectrum, Y, r).log_likelihood for r in ridges) - 1e-6
exact = calibration.probabilities(found.mean, found.variance)
assert abs(shares - exact).max() < 5 * 0.5 / DRAWS**0.5  # standard errors
inside = calibration.coverage(mean, variance + noise, goal, 0.9)
reach = norm.ppf(0.95) * np.sqrt(variance + noise)
assert inside == (abs(goal - mean) <= reach[:, None]).mean()
""",
}


def test_what_is_on_the_site_is_what_is_executed():
    index = (EXAMPLES / "index.md").read_text("utf-8")
    listed = re.search(r"```\{toctree\}\n:hidden:\n\n(.*?)\n```", index, re.DOTALL)[1].split("\n")
    notebooks = {path.stem for path in (REPOSITORY / "docs").rglob("*.ipynb")}
    assert set(listed) == notebooks == set(TOY) and len(listed) == len(notebooks)
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert set(re.findall(r"\{download\}`(\S+)`", index)) == scripts == {one[0] for one in SCRIPTS}


def test_notebooks_are_clean_and_say_what_is_not():
    command = [sys.executable, str(CLEANER), "--check"]
    done = subprocess.run([*command, *map(str, EXAMPLES.glob("*.ipynb"))], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for path in [*EXAMPLES.glob("*.ipynb"), *EXAMPLES.glob("*.py")]:
        assert not re.search(r"(/(home|root|Users|tmp|work|mnt)/|[A-Z]:\\\\)", path.read_text("utf-8")), path


def test_the_cleaner_takes_away_what_executing_leaves(tmp_path):
    path = EXAMPLES / "svc.ipynb"
    ran = json.loads(path.read_text("utf-8"))
    ran["metadata"]["language_info"]["version"] = "3.11.7"
    ran["metadata"]["kernelspec"] |= {"display_name": "mine", "name": "mine"}
    code = next(cell for cell in ran["cells"] if cell["cell_type"] == "code")
    code |= {"execution_count": 3, "outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}]}
    code["metadata"]["execution"] = {"iopub.execute_input": "now"}
    copy = tmp_path / "svc.ipynb"
    copy.write_text(json.dumps(ran))
    command = [sys.executable, str(CLEANER)]
    assert subprocess.run([*command, "--check", str(copy)], capture_output=True).returncode == 1
    assert json.loads(copy.read_text()) == ran  # --check changes nothing
    assert subprocess.run([*command, str(copy)], capture_output=True).returncode == 0
    assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", TOY)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"the notebook {name} trains networks with {NEEDS[name]}")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", 4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    assert _assigned(TOY[name]) <= _assigned(notebook.cells[place].source)
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(TOY[name]))
    notebook.cells.append(nbformat.v4.new_code_cell(ASKED.get(name, "")))
    _execute(notebook, tmp_path, monkeypatch)
    assert _complaints(notebook) == []
    assert _figures(notebook), "a notebook shows a figure at least"


def _assigned(code):
    """The names that some code assigns at its top level."""
    targets = [target for node in ast.parse(code).body for target in node.targets]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _execute(notebook, folder, monkeypatch):
    """Execute a notebook with this Python, in folders of its own and without network ports."""
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as short:  # the path of a socket has at most 107 characters
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", short)
        monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
        monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
        manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{short}/socket")
        there = folder / "there"
        there.mkdir()
        client = NotebookClient(notebook, km=manager, timeout=600, resources={"metadata": {"path": there}})
        client.execute(cleanup_kc=True)  # otherwise the open client would warn later, when it is collected


def _complaints(notebook):
    """What a notebook wrote to standard error, except for fonts that this machine's Matplotlib lacks."""
    said = [
        out.text for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"
    ]
    lines = [line for text in said for line in text.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith("findfont: ")]


def _figures(notebook):
    return [
        1 for cell in notebook.cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})
    ]


def test_a_warning_is_a_complaint():
    cell = nbformat.v4.new_code_cell("1")
    for name, text in (("stdout", "fine\n"), ("stderr", "findfont: none\nUserWarning: mend it\n")):
        cell.outputs.append(nbformat.v4.new_output("stream", name=name, text=text))
    assert _complaints(nbformat.v4.new_notebook(cells=[cell])) == ["UserWarning: mend it"]


SCRIPTS = [
    ("kernel_matrix.py", "pictures", "ntk.npz", "--kernel", "ntk-v-3-all", "--test-share", "0.4"),
    ("svc.py", "ntk.npz", "--folds", "3"),
    ("kernel_matrix.py", "pictures", "nngp.npz", "--kernel", "nngp-v-3", "--test-share", "0.4"),
    ("uncertainty.py", "nngp.npz", "predictions.csv"),
    ("landmarks.py", "images.npy", "12", "some.npz", "--kernel", "ntk-v-3-all", "--how", "greedy"),
    ("landmarks.py", "images.npy", "30", "all.npz", "--kernel", "ntk-v-3-all"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with pictures of three digits, and an array of 30 images."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    monkeypatch.chdir(tmp_path)
    for label, name in ((0, "zero"), (1, "one"), (4, "four")):
        Path("pictures", name).mkdir(parents=True)
        for number, pixels in enumerate(digits.images[digits.target == label][:25]):
            Image.fromarray((15 * pixels).astype(np.uint8)).save(Path("pictures", name, f"{number}.png"))
    x = digits.images[:30, None]
    np.save("images.npy", (x - x.mean()) / x.std())
    return tmp_path


def _script(name, *arguments):
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setattr(sys, "argv", [name, *arguments])
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_scripts_run_one_after_another_and_write_what_they_say(folder, capsys):
    said = {}
    for name, *arguments in SCRIPTS:
        _script(name, *arguments)
        said[name] = capsys.readouterr().out
    data = load_images("folder", path="pictures", test_share=0.4)
    found, readout = np.load("nngp.npz"), [Readout("nngp", "v", 3)]
    K = gram(data.x_train, readouts=readout)[0].astype(float)
    across = gram(data.x_test, data.x_train, readouts=readout)[0].astype(float)
    own = diagonal(data.x_test, readouts=readout)[0].astype(float)
    for name, expected in (("train", K), ("test", across), ("own_test", own), ("y_test", data.y_test)):
        np.testing.assert_array_equal(found[name], expected)
    assert found["classes"].tolist() == ["four", "one", "zero"]
    accuracy = float(re.search(r"test accuracy ([\d.]+) %", said["svc.py"])[1])
    assert accuracy > 80 and "30 images" in said["svc.py"]

    table = np.genfromtxt("predictions.csv", delimiter=",", names=True)
    spectrum, Y = eigen.decompose(K), np.eye(3)[data.y_train] - 1 / 3
    ridge = float(re.search(r"ridge (\S+);", said["uncertainty.py"])[1])
    assumed = gp.prior(spectrum, Y, ridge)
    exact = gp.posterior(spectrum, assumed, gp.coefficients(spectrum, Y, ridge), across, own)
    np.testing.assert_array_equal(table["label"], data.y_test)
    np.testing.assert_allclose(table["variance"], exact.variance / (assumed.scale * own), rtol=0.02)
    shares = calibration.probabilities(exact.mean, exact.variance).max(1)
    assert abs(table["probability"] - shares).max() < 0.06

    x = np.load("images.npy")
    K = gram(x, readouts=[Readout("ntk", "v", 3)])[0].astype(float)
    K /= np.sqrt(np.outer(K.diagonal(), K.diagonal()))
    some = np.load("some.npz")
    index = some["index"]
    left = K.diagonal() - np.einsum("ij,ij->j", K[index], np.linalg.solve(K[np.ix_(index, index)], K[index]))
    np.testing.assert_allclose(some["left"][-1], left.mean(), rtol=1e-4)
    features = np.load("all.npz")["features"]
    np.testing.assert_allclose(features.T @ features, K, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("kernel_matrix.py", ("nowhere", "k.npz"), "nowhere is not there"),
        ("kernel_matrix.py", ("pictures", "k.npz", "--kernel", "ntk"), "readout ntk is unknown"),
        ("landmarks.py", ("images.npy", "31", "l.npz"), "31 landmarks of 30 images: use 1 to 30"),
    ],
)
def test_scripts_refuse_in_a_line(folder, capsys, name, arguments, said):
    with pytest.raises(SystemExit) as ended:
        _script(name, *arguments)
    assert ended.value.code == 2 and said in capsys.readouterr().err
    assert not list(folder.glob("*.npz"))
