"""Every block of the README and of docs/ runs, page by page, or says why it cannot; all blocks are parsed.

So are the commands that notebooks name; `test_examples` runs the notebooks themselves.
"""

import ast
import doctest
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import blocks
import click
import pytest
from warm_program import Warm

from cntk_bench import data
from cntk_bench.cli.program import cli
from cntk_bench.config import config
from cntk_bench.system import resources

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
FOUND = {name: list(blocks.blocks(page.read_text("utf-8"))) for name, page in zip(NAMES, PAGES, strict=True)}
RUNNABLE = ("bash", "console", "python", "pycon")
NOTEBOOKS = sorted((REPOSITORY / "docs").rglob("*.ipynb"))
CALL = re.compile(r"\bcntk-bench +([^`\n]+)")  # in a cell: up to the end of the line, or of the code span

# On this page every command starts the program anew, as it does for readers.
AS_INSTALLED = "docs/first-hour.md"


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A script that runs the program without importing everything anew for each command (`warm_program`)."""
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket must be short
        started = Warm(Path(folder), os.environ | {"PYTHONPATH": str(REPOSITORY)})
        yield started.script()
        started.close()


@pytest.mark.parametrize("name", [name for name in NAMES if FOUND[name]])
def test_every_block_of_a_page_runs_in_order(name, tmp_path, monkeypatch, warm):
    shims = tmp_path / "shims"
    shims.mkdir()
    start = f'#!/bin/sh\nexec "{sys.executable}" %s "$@"\n'
    program = start % "-m cntk_bench" if name == AS_INSTALLED else warm
    for called, text in (("cntk-bench", program), ("python", start % "")):
        (shims / called).write_text(text)
        (shims / called).chmod(0o755)
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "configs").symlink_to(REPOSITORY / "configs")  # as in a checkout of the repository
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{shims}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    names = {"__name__": "page"}
    for block in FOUND[name]:
        if block.language in RUNNABLE and _is_run(block):
            _run(block, names, f"{name}, line {block.line}")


@pytest.mark.parametrize("name", [name for name in NAMES if FOUND[name]])
def test_every_block_of_a_page_is_what_it_says(name, tmp_path):
    for block in FOUND[name]:
        where = f"{name}, line {block.line}"
        assert block.language in blocks.LANGUAGES, f"{where}: a block of {block.language or 'no'} language"
        assert set(block.marks) <= {"not run", "needs"} and len(block.marks.get("not run", "12345678")) >= 8
        if block.language in ("bash", "console"):
            _check_shell(_commands(block), where)
        elif block.language == "python":
            ast.parse(block.text, where)
        elif block.language == "pycon":
            assert doctest.DocTestParser().get_examples(block.text), where
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            (tmp_path / "page.yaml").write_text(block.text)
            assert config.load(tmp_path / "page.yaml").name


def test_what_is_not_run_is_counted_and_the_rest_is_most_of_it():
    runnable = [block for found in FOUND.values() for block in found if block.language in RUNNABLE]
    left_out = [block for block in runnable if "not run" in block.marks]
    print(f"{len(runnable)} blocks, {len(left_out)} of them not run:")
    print(*sorted({block.marks["not run"] for block in left_out}), sep="\n")
    assert len(runnable) > 60 and len(left_out) < len(runnable) / 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_command_that_a_notebook_names_can_be_given(path):
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        for said in CALL.findall("".join(cell["source"])):
            _check_call(shlex.split(said, comments=True), f"{path.name}: cntk-bench {said}")


def test_the_reference_has_every_config_that_ships(monkeypatch):
    pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install 'cntk-bench[docs]'")
    monkeypatch.syspath_prepend(REPOSITORY / "docs" / "extensions")
    import generated

    page = (REPOSITORY / "docs" / "reference" / "config.md").read_text("utf-8")
    assert generated.MARK.findall(page) == ["configs", "keys"]
    rows = re.findall(r"^\| `(\S+)` \| (.+?) \| (.+?) \|$", generated.configs(), re.MULTILINE)
    assert [name for name, _, _ in rows] == resources.configs()
    assert all("cntk-bench run" not in about and "Source:" not in about + time for _, about, time in rows)


def _is_run(block):
    module = block.marks.get("needs")
    return "not run" not in block.marks and (module is None or _imports(module))


def _imports(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _run(block, names, where):
    if block.language == "bash":
        _bash(block.text, where)
    elif block.language == "console":
        for command, expected in _session(block.text):
            printed = _bash(command, where)
            assert _fits(expected, printed), f"{where}: expected\n{expected}\nfound\n{printed}"
    elif block.language == "python":
        exec(compile(block.text, where, "exec"), names)
    else:
        test = doctest.DocTestParser().get_doctest(block.text, names, where, where, block.line)
        said = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, out=said.append, clear_globs=False)
        names |= test.globs
        assert not runner.failures, "".join(said)


def _bash(text, where):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, f"{where}: {text}\n{done.stdout}{done.stderr}"
    return done.stdout


def _session(text):
    """(command, expected output) for each `$ `; a backslash continues a command on the next line."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = re.sub(r"\\\n *", "", part).partition("\n")
        yield command, expected


def _fits(expected, printed):
    """Whether output is as expected; `...` stands for anything, and on a line of its own for any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else ".*".join(map(re.escape, line.split("..."))) + r"[ ]*\n"
        for line in expected.splitlines()
    )
    return re.fullmatch(pattern, printed) is not None


def _commands(block):
    return block.text if block.language == "bash" else "\n".join(c for c, _ in _session(block.text))


def _check_shell(text, where):
    """Check the syntax, and in every call of the program its command and arguments (`_check_call`)."""
    checked = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True)
    assert checked.returncode == 0, f"{where}: {checked.stderr}"
    for line in re.sub(r"\\\n", " ", text).splitlines():
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            if word.endswith("cntk-bench") and (start == 0 or words[start - 1] in ("&&", "||", ";", "|")):
                _check_call(words[start + 1 :], f"{where}: {line.strip()}")


def _check_call(words, where):
    """Check a command's name and options, keys of the config, and names of configs and data sets."""
    end = next((i for i, w in enumerate(words) if w in ("&&", "||", ";", "|", ">", ">>", "&")), len(words))
    name, *arguments = words[:end]
    if name.startswith("-"):
        return
    assert name in cli.commands, f"{where}: there is no command {name}"
    command = cli.commands[name]
    context = click.Context(command, info_name=name)
    try:
        given, _, _ = command.make_parser(context).parse_args(list(arguments))
    except click.UsageError as error:
        pytest.fail(f"{where}: {error.format_message()}")
    for argument in ("config", "dataset"):
        named = given.get(argument)
        if isinstance(named, str) and re.fullmatch(r"[\w-]+", named):  # else it is a file
            known = named in resources.configs() or (argument == "dataset" and data.is_known(named))
            assert known, f"{where}: no {argument} is called {named}"
    for assignment in given.get("overrides") or ():
        key = assignment.partition("=")[0].split(".")
        model = config.Config
        for part in key:
            assert part in model.model_fields, f"{where}: there is no key {'.'.join(key)}"
            model = model.model_fields[part].annotation
