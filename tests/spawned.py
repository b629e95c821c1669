"""An executor as another package might have one: two freshly started processes, each with the pickled job."""

import multiprocessing
from collections import deque
from concurrent.futures import ThreadPoolExecutor

PROCESSES = 2


def run(job, tasks, report, stopped, workers):
    """Hand tasks to both processes in turn; see `cntk_bench.executors.run`."""
    context = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(PROCESSES) as threads:
        ends = [threads.submit(_drive, context, job) for _ in range(PROCESSES)]
        connections = [end.result() for end in ends]
    try:
        waiting = deque()
        for number, task in enumerate(tasks):
            if len(waiting) == PROCESSES:
                report(_answer(waiting.popleft()))
            if stopped():
                break
            connection, _ = connections[number % PROCESSES]
            connection.send(task)
            waiting.append(connection)
        while waiting:
            report(_answer(waiting.popleft()))
    finally:
        for connection, process in connections:
            connection.send(None)
            process.join()


def _drive(context, job):
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(job, theirs))
    process.start()
    return ours, process


def _answer(connection):
    found = connection.recv()
    if isinstance(found, Exception):
        raise found
    return found


def _work(job, connection):
    with job.worker() as start:
        while (task := connection.recv()) is not None:
            try:
                start(task)().result()
                connection.send(task)
            except Exception as error:
                connection.send(error)
