"""Completion in shells, through the real program, which must not import any library for it."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
from test_cli import REPOSITORY

from cntk_bench.cli import completion
from cntk_bench.config import config, mistakes

CONFIG = "dataset: {train: 20}\nkernel: {columns: [CNTK-GAP, CNN-GP-V]}\n"


def complete(folder, *words, shell="bash", python=()):
    """Run the program as a shell does to complete the last word; it prints the completions."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "_CNTK_BENCH_COMPLETE": f"{shell}_complete"}
    environment |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    environment |= {"COMP_WORDS": " ".join(words), "COMP_CWORD": words[-1]} if shell == "fish" else {}
    done = subprocess.run(
        [sys.executable, *python, "-m", "cntk_bench"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    return done


def words(folder, *line):
    return [
        item.partition(",")[2] for item in complete(folder, "cntk-bench", *line).stdout.split("\n") if item
    ]


@pytest.fixture
def folder(tmp_path):
    for name in ("runs/one", "runs/two", "elsewhere/three", "elsewhere/no-run"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/one", "elsewhere/three"):
        (tmp_path / name / "config.yaml").write_text(CONFIG)
    (tmp_path / "runs/two/config.yaml").write_text("kernel: {columns: [RBF]}\n")
    (tmp_path / "mine.yaml").write_text(CONFIG)
    return tmp_path


def test_configs_runs_columns_and_keys(folder):
    assert words(folder, "run", "quick") == ["quickstart", "quickstart-networks"]
    assert words(folder, "plan", "mi") == ["mine.yaml"]
    assert words(folder, "table", "") == ["runs/one", "runs/two"]
    assert words(folder, "status", "elsewhere/") == ["elsewhere/three"]
    assert words(folder, "status", "else") == ["elsewhere/"]
    assert words(folder, "flow", "runs/two", "--column", "") == ["RBF"]
    assert words(folder, "flow", "--column", "") == ["CNTK-GAP", "CNN-GP-V", "RBF"]
    assert words(folder, "run", "quickstart", "--set", "solve.r") == ["solve.ridge="]
    assert words(folder, "compute", "quickstart", "--from", "runs/t") == ["runs/two"]
    assert {"--output", "--backend", "--json"} <= set(words(folder, "run", "--"))
    assert "slurm-script" in words(folder, "s")


def test_keys_are_those_of_the_sections():
    known = mistakes.fields(config.Config)
    leaves = [key for key in known if not any(other.startswith(f"{key}.") for other in known)]
    assert sorted(completion.config_keys()) == sorted(leaves) and "compute.slurm.time" in leaves


@pytest.mark.parametrize("line", [("flow", "runs/one", "--column", ""), ("run", "--set", "k"), ("run", "q")])
def test_no_large_library_is_imported(folder, line):
    done = complete(folder, "cntk-bench", *line, python=("-X", "importtime"))
    imported = {part.rpartition("|")[2].strip().partition(".")[0] for part in done.stderr.splitlines()}
    assert done.stdout and "click" in imported
    assert not imported & {"numpy", "scipy", "numba", "pydantic", "sklearn", "torch", "matplotlib", "zarr"}


def test_a_damaged_config_completes_nothing(folder):
    (folder / "runs/one/config.yaml").write_text("kernel: [\n")
    assert words(folder, "flow", "runs/one", "--column", "") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_the_same(folder, shell):
    told = complete(folder, "cntk-bench", "run", "quickstart-n", shell=shell).stdout
    assert "quickstart-networks" in told and "cifar10" not in told


TYPED = [
    ("cntk-bench stat", "status "),
    ("cntk-bench run quickstart-n", "quickstart-networks "),
    ("cntk-bench solve runs/o", "runs/one "),
    ("cntk-bench flow runs/two --column R", "RBF "),
    ("cntk-bench solve elsew", "elsewhere/"),
    ("cntk-bench run quickstart --set solve.rid", "solve.ridge="),
]


def documented(shell):
    """The line that the documentation tells people to put into the shell's startup file."""
    page = (REPOSITORY / "docs" / "command-line.md").read_text("utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| {shell} "))
    return re.fullmatch(r".*\| `(.*)` \|", row)[1].replace(r"\|", "|")


@pytest.fixture
def surroundings(folder):
    """An environment with a program `cntk-bench` and an empty home directory."""
    program = folder / "bin" / "cntk-bench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cntk_bench "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    home = {"HOME": str(folder), "ZDOTDIR": str(folder), "XDG_CONFIG_HOME": str(folder / ".config")}
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": path, "TERM": "dumb"} | home


class Terminal:
    """A shell at a pseudo-terminal."""

    def __init__(self, command, folder, environment):
        self.pid, self.handle = pty.fork()
        if not self.pid:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        self.said = ""

    def type(self, text):
        os.write(self.handle, text.encode())

    def until(self, text):
        """Wait for a text, return the output before it; if it never comes, the error shows the output."""
        end = time.monotonic() + 120
        while text not in self.said and time.monotonic() < end:
            if select.select([self.handle], [], [], 0.5)[0]:
                self.said += os.read(self.handle, 4096).decode(errors="replace")
        assert text in self.said, self.said
        before, _, self.said = self.said.partition(text)
        return before

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.handle)


@pytest.mark.parametrize(
    ("shell", "file", "command"),
    [("bash", ".bashrc", ["bash", "-i"]), ("zsh", ".zshrc", ["zsh", "-i"])],
)
def test_at_a_terminal(folder, surroundings, shell, file, command):
    """With the documented line in the startup file, Tab completes words; no space after = and /."""
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    (folder / file).write_text(f"{documented(shell)}\nPS1='> '\nPROMPT='> '\n")
    terminal = Terminal(command, folder, surroundings)
    try:
        terminal.until("> ")
        for line, completed in TYPED:
            terminal.type(f"{line}\t")
            terminal.until(f"{line.rpartition(' ')[0]} {completed}")
            terminal.type("x")
            between = terminal.until("x").replace("\a", "")
            assert completed.endswith(" ") or between == "", completed
            terminal.type("\x15")  # Ctrl-U deletes the line
    finally:
        terminal.close()


def test_in_fish(folder, surroundings):
    if not shutil.which("fish"):
        pytest.skip("there is no fish here")
    file = folder / ".config" / "fish" / "completions" / "cntk-bench.fish"
    file.parent.mkdir(parents=True)
    file.write_text(f"{documented('fish')}\n")
    script = "\n".join(f"complete -C '{line}'; echo END" for line, _ in TYPED)
    done = subprocess.run(
        ["fish", "-c", script], cwd=folder, env=surroundings, capture_output=True, text=True
    )
    told = [part.split("\n")[:-1] for part in done.stdout.removesuffix("END\n").split("END\n")]
    assert [[line.split("\t")[0] for line in part] for part in told] == [
        [completed.rstrip()] for _, completed in TYPED
    ], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(shell):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "_CNTK_BENCH_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "cntk_bench"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and f"{shell}_complete" in done.stdout
