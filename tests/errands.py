"""A job for any executor: each task notes itself in files of its own, and some do harm on the way."""

import os
import signal
import time
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cntk_bench.errors import UserError


@dataclass(frozen=True)
class Errand:
    """A task. Its harm: "" is none; "once" kills its worker the first time, "always" every time."""

    number: int
    harm: str = ""

    def __str__(self):
        return f"errand {self.number}"


@dataclass(frozen=True)
class Job:
    folder: Path
    pause: float = 0.0
    broken: bool = False  # if so, no worker can begin
    ballast: bytes = b""  # more than fits into a pipe, as with images

    @contextmanager
    def worker(self):
        if self.broken:
            os._exit(3)
        with open(self.folder / f"worker-{os.getpid()}", "a") as file:
            file.write(os.environ.get("PLACE", "") + "\n")
        yield self.start

    def start(self, task):
        def end():
            begun = self.folder / f"begun-{task.number}"
            first = not begun.exists()
            with begun.open("a") as file:
                file.write("once more\n")
            time.sleep(self.pause)
            if task.harm == "always" or task.harm == "once" and first:
                os.kill(os.getpid(), signal.SIGKILL)
            if task.harm == "hang" and first:
                os.kill(os.getpid(), signal.SIGSTOP)
            if task.harm == "sleep" and first:
                time.sleep(10**6)
            if task.harm == "raise":
                raise UserError("the disk is full: make room")
            (self.folder / f"done-{task.number}").touch()
            found = Future()
            found.set_result(None)
            return found

        return end


def done(folder):
    """The numbers of the finished errands."""
    return sorted(int(file.name.split("-")[1]) for file in folder.glob("done-*"))


def begun(folder):
    """How often each errand was begun, keyed by its number."""
    return {int(f.name.split("-")[1]): len(f.read_text().splitlines()) for f in folder.glob("begun-*")}


def crew(folder):
    """Where the workers that began run."""
    return [file.read_text().strip() for file in folder.glob("worker-*")]
