"""Print the path of a Python of a version, such as 3.12: on the PATH, of pyenv, or brought by uv.

python scripts/find_python.py 3.12     # exit code 1 where there is none
"""

import shutil
import subprocess
import sys
from pathlib import Path


def works(python: str | Path, version: str) -> bool:
    """Whether a Python starts and has that version: pyenv's shims do not start versions not selected."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == version


def candidates(version: str):
    """Paths where such a Python may be, the cheapest to find first."""
    if found := shutil.which(f"python{version}"):
        yield found
    yield from sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), reverse=True)
    if uv := shutil.which("uv"):
        done = subprocess.run([uv, "python", "find", version], capture_output=True, text=True)
        if done.returncode == 0:
            yield done.stdout.strip()


def main():
    for python in candidates(sys.argv[1]):
        if works(python, sys.argv[1]):
            print(python)
            return
    sys.exit(1)


if __name__ == "__main__":
    main()
