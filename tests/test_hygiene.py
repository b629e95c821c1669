"""What ships beside the code: source distribution, citation, classifiers, containers, typing mark."""

import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import yaml

import cntk_bench

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_the_source_distribution_has_what_builds_tests_and_documents_and_no_records(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=300)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    wanted = {name for name in tracked.stdout.split("\n") if name and not name.startswith((".", "results/"))}
    wanted = {name for name in wanted if (REPOSITORY / name).exists()}
    assert wanted <= names, sorted(wanted - names)
    assert not [name for name in names if name.startswith("results/") or "__pycache__" in name]
    assert (REPOSITORY / "cntk_bench" / "py.typed").exists()


def test_the_citation_is_of_this_version_and_of_the_paper():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert cited["version"] == cntk_bench.__version__ and cited["license"] == PROJECT["license"]
    (paper,) = cited["references"]
    assert paper["title"] in (REPOSITORY / "README.md").read_text()


def test_classifiers_name_the_pythons_that_are_tested():
    tested = re.search(r"for version in ([\d. ]+);", (REPOSITORY / ".ci" / "run").read_text())[1].split()
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert named == tested and PROJECT["requires-python"] == f">={named[0]}"


def test_containers_copy_what_there_is_and_what_a_wheel_is_built_from():
    folder = REPOSITORY / "scripts" / "containers"
    docker = (folder / "Dockerfile").read_text()
    copied = [
        word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", docker, re.M) for word in line.split()
    ]
    files = re.search(r"%files\n(.*?)\n\n", (folder / "cntk-bench.def").read_text(), re.S)[1].split("\n")
    assert sorted(line.split()[0] for line in files) == sorted(copied)
    allowed = re.findall(r"^!(\S+)", (folder / "Dockerfile.dockerignore").read_text(), re.M)
    assert sorted(allowed) == sorted(copied) and all((REPOSITORY / name).exists() for name in copied)
    bases = set(
        re.findall(r"^From: (\S+)|^FROM (\S+)", docker + (folder / "cntk-bench.def").read_text(), re.M)
    )
    assert len({name for pair in bases for name in pair if name}) == 1
