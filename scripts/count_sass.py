"""Counts the instructions of the CUDA kernels' hot loops, without a GPU.

Compiles with NVRTC, disassembles with nvdisasm, finds the loop over layers in the control flow and
prints registers, spills and the instructions per entry-layer: one entry of one plane in one layer
that is not read out, everything the loop does between two layers included. Of the original algorithm
(rung 0), whose layers are launches, it counts the straight line through a layer's three.

    python scripts/count_sass.py --arch sm_90 --size 32

Needs the packages cupy, nvidia-cuda-nvrtc, nvidia-cuda-nvdisasm; no driver.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import original  # noqa: E402

from cntk_bench.backends.cuda import sources as cuda_sources  # noqa: E402
from cntk_bench.backends.cuda.zones import Zone, zones  # noqa: E402
from cntk_bench.kernels.spec import Readout, Spec  # noqa: E402

# KiB of shared memory of a multiprocessor, which decides how `diagonal` is tiled.
SHARED = {
    "sm_75": 64,
    "sm_80": 164,
    "sm_86": 100,
    "sm_89": 100,
    "sm_90": 228,
    "sm_100": 228,
    "sm_103": 228,
    "sm_120": 100,
}
DEPTHS = (3, 4, 6, 11, 21)
# Which pipe issues an instruction, by the beginning of its name; the first match holds.
PIPES = (
    ("FP64", r"D(FMA|MUL|ADD|SETP|MNMX)"),
    ("FMA", r"FFMA|FMUL|FADD|IMAD|HFMA2"),
    ("MUFU", r"MUFU|F2F|I2F\b|F2I"),
    ("LSU", r"LD|ST|SHFL|ATOM|RED"),
    ("uniform", r"U[A-Z]|R2UR|S2UR"),
    ("control", r"BRA|BAR|BSSY|BSYNC|EXIT|NOP|DEPBAR|WARPSYNC|CALL|RET|YIELD|MEMBAR"),
    ("ALU", r"."),
)


def pipe(opcode: str) -> str:
    """The pipe that issues an opcode, such as FMA for FFMA.FTZ."""
    return next(name for name, pattern in PIPES if re.match(pattern, opcode))


@cache
def compile_text(text: str, options, arch: str) -> tuple[bytes, str]:
    """Kernels with exactly the options they run with -> cubin and the assembler's log."""
    from cupy.cuda import nvrtc

    if "--use_fast_math" not in options:  # fast math implies it; otherwise CuPy adds it
        options = (*options, "-ftz=true")

    program = nvrtc.createProgram(text, "kernels.cu", [], [])
    try:
        nvrtc.compileProgram(program, [*options, f"-arch={arch}", "--ptxas-options=-v"])
        return nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program)  # CuPy drops the last byte
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"{arch}: {error}\n{nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)


def compile_module(module: str, zone: Zone, arch: str, shared_bytes: int | None = None) -> tuple[bytes, str]:
    """One module of the backend for a zone -> cubin and the assembler's log.

    shared_bytes : of a multiprocessor; known for the architectures of `SHARED`.
    """
    constants = zone.constants(shared_bytes or SHARED.get(arch, 100) << 10)
    options = cuda_sources.options(module, constants)
    return compile_text(cuda_sources.text(module), options, arch)


def resources(log: str) -> tuple[int, int]:
    """Registers a thread, and bytes spilled (stores and loads), from the assembler's log."""
    registers = max(int(n) for n in re.findall(r"Used (\d+) registers", log))
    return registers, sum(int(n) for n in re.findall(r"(\d+) bytes spill", log))


def disassembler() -> str:
    """The program nvdisasm; FileNotFoundError or ImportError where it is not installed."""
    found = shutil.which("nvdisasm")
    if found:
        return found
    import nvidia

    programs = [path for base in nvidia.__path__ for path in Path(base).glob("*/bin/nvdisasm*")]
    if not programs:
        raise FileNotFoundError("no nvdisasm: pip install nvidia-cuda-nvdisasm")
    return str(programs[0])


def disassemble(cubin: bytes) -> list[str]:
    """Lines of SASS: labels (of kernels, ".text.name:"), and instructions without addresses."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [disassembler(), "-c", file.name], capture_output=True, text=True, check=True
        ).stdout
    lines = (re.sub(r"/\*.*?\*/", "", line).strip() for line in text.splitlines())
    return [line for line in lines if re.match(r"\.L_x_\d+:|\.text\.\w+:|[^.#].*;$", line)]


def opcode(instruction: str) -> str:
    """The opcode of an instruction, which a predicate may precede."""
    return re.sub(r"^@!?U?P\w+\s+", "", instruction).rstrip(" ;").split()[0]


def hot_loop(lines: list[str], entries: int) -> Counter:
    """Opcodes of one iteration of the loop over layers, for a layer that is not read out.

    Its body is the basic block with one square root for each of a lane's entries and the fewest instructions;
    the iteration is the longest way from it back to it that passes no other block with square roots, nor one
    that sums over lanes.
    """
    targets = {t for line in lines for t in re.findall(r"(?:BRA|BSSY)\b.*`\((\.L_x_\d+)\)", line)}
    blocks, names = [[]], {}
    for line in lines:
        label = line[:-1] if line.endswith(":") else None
        if label in targets:
            if blocks[-1]:
                blocks.append([])
            names[label] = len(blocks) - 1
        elif label is None:
            blocks[-1].append(line.rstrip(" ;"))
            if re.search(r"\b(BRA|EXIT|RET)\b", line):
                blocks.append([])

    def following(b):
        if not blocks[b]:
            return [b + 1] if b + 1 < len(blocks) else []
        last = blocks[b][-1]
        jump = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", last)
        after = [names[jump[1]]] if jump else []
        falls = last.startswith("@") or not re.match(r"(BRA|EXIT|RET)\b", last)
        return after + ([b + 1] if falls and b + 1 < len(blocks) else [])

    roots = [sum("MUFU.SQRT" in line or "MUFU.RSQ" in line for line in block) for block in blocks]
    body = min(
        (b for b, count in enumerate(roots) if count >= entries * 31 // 32), key=lambda b: len(blocks[b])
    )
    turns = []

    def walk(path):
        for b in following(path[-1]):
            if b == body:
                turns.append(path)
            elif b not in path and roots[b] <= 1 and not any("SHFL.BFLY" in line for line in blocks[b]):
                walk([*path, b])

    walk([body])
    turn = max(turns, key=lambda path: sum(len(blocks[b]) for b in path))
    return Counter(opcode(line) for b in turn for line in blocks[b])


def straight_line(lines: list[str], kernel: str, idle: bool = False) -> Counter:
    """Opcodes of a kernel from its entry to its last exit, subroutines for rare operands left out.

    If `idle`, to its first exit: that of threads without an entry.
    """
    body = lines[lines.index(f".text.{kernel}:") + 1 :]
    ends = [n for n, line in enumerate(body) if line.startswith(".text.")]
    body = [line for line in body[: ends[0] if ends else None] if not line.endswith(":")]
    exits = [n for n, line in enumerate(body) if opcode(line) == "EXIT"]
    return Counter(opcode(line) for line in body[: (exits[0] if idle else exits[-1]) + 1])


@dataclass(frozen=True)
class Count:
    """What one kernel costs: registers per thread, bytes spilled, instructions per entry-layer by opcode."""

    registers: int
    spills: int
    instructions: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.instructions.values())

    def by_pipe(self) -> dict[str, float]:
        out = dict.fromkeys((name for name, _ in PIPES), 0.0)
        for name, count in self.instructions.items():
            out[pipe(name)] += count
        return out


def count(module: str, zone: Zone, arch: str, shared_bytes: int | None = None) -> Count:
    """Instruction count of a shipped kernel, "diagonal" or "displacements", for a zone."""
    cubin, log = compile_module(module, zone, arch, shared_bytes)
    entries = zone.spec.size * zone.layout.columns
    loop = hot_loop(disassemble(cubin), entries)
    return Count(*resources(log), {name: number / entries for name, number in loop.items()})


def count_original(spec: Spec, arch: str) -> Count:
    """Rung 0's count: one activation, two box sums.

    A warp holds a row of a plane. Per entry, warps with entries spend (2P - 1) / P lanes, and warps without
    any, whose rows lie outside z, (P - 1) / P times as many.
    """
    cubin, log = compile_text(original.text(), original.options(spec), arch)
    lines = disassemble(cubin)

    def a_layer(idle):
        box = straight_line(lines, "box", idle)
        return straight_line(lines, "activate", idle) + box + box

    layer, none = a_layer(idle=False), a_layer(idle=True)
    busy = (2 * spec.size - 1) / spec.size
    outside = busy * (spec.size - 1) / spec.size
    names = layer | none
    return Count(*resources(log), {name: busy * layer[name] + outside * none[name] for name in names})


def specs(size: int) -> dict[str, Spec]:
    """Name -> the spec for which kernels are compiled and counted."""
    gap = [Readout(kernel, "gap", depth) for kernel in ("ntk", "nngp") for depth in DEPTHS]
    v = [Readout("ntk", "v", depth) for depth in DEPTHS]
    return {"V": Spec(tuple(v), 3, size), "V, GAP, NNGP": Spec(tuple(v + gap), 3, size)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="+", default=["sm_90"], help="such as sm_75 sm_90")
    parser.add_argument("--size", type=int, default=32, help="pixels P")
    parser.add_argument("--opcodes", action="store_true", help="list the opcodes, too")
    arguments = parser.parse_args()
    columns = f"{'readouts':14}{'kernel':16}{'arch':8}{'registers':>10}{'spills':>8}{'total':>8}"
    print(columns + "".join(f"{name:>9}" for name, _ in PIPES))
    for name, kernel, arch, counted in counts(arguments.size, arguments.arch):
        row = f"{name:14}{kernel:16}{arch:8}{counted.registers:10}{counted.spills:8}{counted.total:8.2f}"
        print(row + "".join(f"{number:9.2f}" for number in counted.by_pipe().values()))
        if arguments.opcodes:
            for name_, number in sorted(counted.instructions.items(), key=lambda item: -item[1]):
                print(f"    {name_:24}{number:8.2f}  {pipe(name_)}")


def counts(size: int, architectures):
    """All counts: (readouts, kernel, architecture, Count)."""
    table = specs(size)
    for arch in architectures:
        yield "V, GAP, NNGP", "original", arch, count_original(table["V, GAP, NNGP"], arch)
        for name, spec in table.items():
            for kernel, zone in zip(("diagonal", "displacements"), zones(spec), strict=False):
                yield name, kernel, arch, count(kernel, zone, arch)


if __name__ == "__main__":
    main()
