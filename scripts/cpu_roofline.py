"""What bounds the loops of the CPU's kernels: cycles for each unit as LLVM counts them, and time as measured.

    python scripts/cpu_roofline.py                    # prints a Markdown table; needs llvm-mca on the path
    python scripts/cpu_roofline.py --cpu znver3       # units of another CPU; the code stays this machine's

A row is one entry of one layer, of `lanes.LANES` pairs: the two loops of `backends.cpu.layers.layer`, where
nothing is read out. Units work side by side, so the busiest one is a bound that nothing can beat; what is
measured has besides the order of instructions, the caches, and what other programs take of the core.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numba  # noqa: E402
import numpy as np  # noqa: E402

from cntk_bench.backends.cpu import Backend, activation, lanes, layers, planes, slabs  # noqa: E402
from cntk_bench.kernels.spec import Readout, Spec  # noqa: E402

SIZE, LAYERS = 32, (10, 20)
UNITS = {  # ports of LLVM's models, by what they do; the sum of a unit is divided by how many it has
    "skylake-avx512": {"arithmetic": ("SKXPort0", "SKXPort5"), "loads": ("SKXPort2", "SKXPort3"),
                       "stores": ("SKXPort4",), "scalar": ("SKXPort1", "SKXPort6")},
}  # fmt: skip


def passes():
    """(name, Backend, Pass) for a plane in float32, of GAP, and for one in float64, of V."""
    for name, kind in (("float32, GAP and LAP", "gap"), ("float64 in places, V", "v")):
        backend = Backend(Spec((Readout("ntk", kind, LAYERS[-1] + 1),), 3, SIZE))
        yield name, backend, backend.passes[-1]


def assembly(each):
    """The machine code of a layer where nothing is read out, as text."""
    (_, begin, end, first, last), columns, ends = each.slabs[0][0], *each.slabs[1:]
    room, S, T, T2 = slabs.room_of(SIZE, end - begin, 3, 1, each.wide, 1, 1, 1)
    image = slabs.aligned(SIZE**2 * lanes.LANES, each.wide)
    compiled = numba.njit(nogil=True, error_model="numpy")(layers.layer.py_func)
    of_x = of_z = (image, 0)
    compiled(
        SIZE,
        1,
        columns[begin:end],
        ends[first:last],
        of_x,
        of_z,
        S,
        T,
        T2,
        *room[:2],
        each.exact,
        layers.OFF,
        None,
        activation.CONSTANTS,
    )
    return next(iter(compiled.inspect_asm().values()))


def loops(text):
    """The two loops over a row's entries, up to the root and from there on, as lists of instructions.

    LLVM may compile a loop in several versions, of which the one that does most entries per turn is taken.
    """
    lines = text.splitlines()
    labels = {line[:-1]: number for number, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    found = {}
    for number, line in enumerate(lines):
        target = re.match(r"\s+j\w+\s+(\.L\w+)$", line)
        if target and labels.get(target[1], number) < number:
            found[labels[target[1]]] = number + 1
    inner: list[tuple[int, int]] = []
    for first, last in sorted(
        found.items(), key=lambda one: one[1] - one[0]
    ):  # a loop may have two entrances
        if all(last <= a or b <= first for a, b in inner):
            inner.append((first, last))
    bodies = [[one for one in lines[a:b] if not re.match(r"\.L|\s+(j|\.)", one)] for a, b in inner]
    kept = [body for body in bodies if entries(body)]
    halves = [
        [body for body in kept if any("psrld" in one for one in body) == root] for root in (True, False)
    ]
    if not all(halves):
        raise SystemExit("the loops over entries were not found: LLVM compiles them in another way")
    return [max(half, key=entries) for half in halves]


def entries(body):
    """How many entries one turn of a loop computes: each has one negated product per register."""
    bits = {"x": 128, "y": 256, "z": 512}
    negated = [re.search(r"%([xyz])mm", one) for one in body if "fnmadd" in one]
    return sum(bits[one[1]] for one in negated if one) / (32 * lanes.LANES)


def cycles(body, cpu):
    """Cycles of each unit for one entry of a loop, in LLVM's model of a CPU."""
    turns = 300
    told = subprocess.run(
        ["llvm-mca", f"-mcpu={cpu}", f"--iterations={turns}"], input="\n".join(body), text=True,
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    names = re.findall(r"^\[([\d.]+)\]\s+- (\w+)$", told, re.M)
    per_turn = re.search(r"pressure per iteration:\n.*\n(.*)", told)[1].split()
    pressure = {
        name: 0.0 if value == "-" else float(value) for (_, name), value in zip(names, per_turn, strict=True)
    }
    units = UNITS.get(cpu) or {name: (name,) for name in pressure}
    found = {unit: sum(pressure[port] for port in ports) / len(ports) for unit, ports in units.items()}
    total = int(re.search(r"Total Cycles:\s+(\d+)", told)[1])
    found["all, in order"] = total / turns
    return {unit: value / entries(body) for unit, value in found.items()}


def measured(backend, each, runs=15):
    """Nanoseconds per entry-layer, from the time of ten more layers: by least times, and by medians."""
    rng, n = np.random.default_rng(0), lanes.LANES
    prepared = backend.prepare(rng.standard_normal((n, 3, SIZE, SIZE), dtype=np.float32)).arrays[each.wide]
    listed, columns, ends = each.slabs
    middle = listed[listed[:, 0] == 0][:1]
    counts, scales, constants = backend.numbers
    out, none = np.zeros((1, n, n)), np.zeros((0, 4), np.int64)

    def seconds(layers):
        room = slabs.room_of(SIZE, slabs.width_of(middle), 3, layers, each.wide, 1, 1, len(counts))
        some = prepared[0], np.ascontiguousarray(prepared[1][:, :layers])
        started = time.perf_counter()
        planes.recursion(
            SIZE, middle, columns, ends, each.exact, some, some, each.states, none, counts, scales[:layers],
            constants, *room, out,
        )  # fmt: skip
        return time.perf_counter() - started

    few, many = LAYERS
    seconds(few)
    times = np.array([[seconds(few), seconds(many)] for _ in range(runs)])
    entries = n * (many - few) * SIZE**2
    return [1e9 * float(np.diff(value)[0]) / entries for value in (times.min(0), np.median(times, 0))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", default="skylake-avx512", help="as llvm-mca names it")
    cpu = parser.parse_args().cpu
    if shutil.which("llvm-mca") is None:
        raise SystemExit("llvm-mca is not on the path: install LLVM's tools")
    for name, backend, each in passes():
        found = [cycles(body, cpu) for body in loops(assembly(each))]
        if name.startswith("float32"):
            print(f"| plane | {' | '.join(found[0])} | ns, least | ns, median |")
            print("|---|" + "---:|" * (len(found[0]) + 2))
        total = {unit: sum(loop[unit] for loop in found) for unit in found[0]}
        times = measured(backend, each)
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in (*total.values(), *times)) + " |")


if __name__ == "__main__":
    main()
