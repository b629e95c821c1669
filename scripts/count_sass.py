"""Counts the instructions of the CUDA kernels' hot loops, without a GPU.

Compiles with NVRTC, disassembles with nvdisasm, finds the loop over layers in the control flow and
prints registers, spills and the instructions an entry-layer: one entry of one plane in one layer
that is not read out, everything the loop does between two layers included.

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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from cntk_bench.backends import cuda  # noqa: E402
from cntk_bench.spec import Readout, Spec  # noqa: E402

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
    """The pipe of one opcode, such as FFMA.FTZ -> FMA."""
    return next(name for name, pattern in PIPES if re.match(pattern, opcode))


def compile_module(module: str, options, arch: str) -> tuple[bytes, str]:
    """One module with exactly the options the backend gives -> cubin and the assembler's log."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(cuda.module_text(module), f"{module}.cu", [], [])
    try:
        nvrtc.compileProgram(program, [*options, f"-arch={arch}", "--ptxas-options=-v"])
        return nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program)  # CuPy drops the last byte
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"{module} for {arch}: {error}\n{nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)


def resources(log: str) -> tuple[int, int]:
    """Registers a thread, and bytes spilled (stores and loads), from the assembler's log."""
    registers = max(int(n) for n in re.findall(r"Used (\d+) registers", log))
    return registers, sum(int(n) for n in re.findall(r"(\d+) bytes spill", log))


def disassemble(cubin: bytes) -> list[str]:
    """Lines of SASS: labels, and instructions without addresses."""
    program = shutil.which("nvdisasm")
    if not program:
        import nvidia

        found = (path for base in nvidia.__path__ for path in Path(base).glob("*/bin/nvdisasm*"))
        program = str(next(path for path in found if path.is_file()))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([program, "-c", file.name], capture_output=True, text=True, check=True).stdout
    lines = (re.sub(r"/\*.*?\*/", "", line).strip() for line in text.splitlines())
    return [line for line in lines if re.match(r"\.L_x_\d+:|[^.#].*;$", line)]


def hot_loop(lines: list[str], size: int) -> Counter:
    """Opcodes of one turn of the loop over layers, for a layer that is not read out.

    Its body is the basic block with one square root a row and the fewest instructions; the turn is
    the longest way round through no other block with square roots, nor one that sums over lanes.
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

    def opcode(instruction):
        return re.sub(r"^@!?U?P\w+\s+", "", instruction).split()[0]

    def following(b):
        if not blocks[b]:
            return [b + 1] if b + 1 < len(blocks) else []
        last = blocks[b][-1]
        jump = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", last)
        after = [names[jump[1]]] if jump else []
        falls = last.startswith("@") or not re.match(r"(BRA|EXIT|RET)\b", last)
        return after + ([b + 1] if falls and b + 1 < len(blocks) else [])

    roots = [sum("MUFU.SQRT" in line or "MUFU.RSQ" in line for line in block) for block in blocks]
    body = min((b for b, count in enumerate(roots) if count >= size - 1), key=lambda b: len(blocks[b]))
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


def specs(size: int) -> dict[str, Spec]:
    """What is counted: a name -> what the kernels are compiled for."""
    gap = [Readout(kernel, "gap", depth) for kernel in ("ntk", "nngp") for depth in DEPTHS]
    v = [Readout("ntk", "v", depth) for depth in DEPTHS]
    return {"V": Spec(tuple(v), 3, size), "V, GAP, NNGP": Spec(tuple(v + gap), 3, size)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="+", default=["sm_90"], help="such as sm_75 sm_90")
    parser.add_argument("--size", type=int, default=32, help="pixels P")
    parser.add_argument("--opcodes", action="store_true", help="list the opcodes, too")
    arguments = parser.parse_args()
    pipes = [name for name, _ in PIPES]
    columns = f"{'readouts':14}{'kernel':16}{'arch':8}{'registers':>10}{'spills':>8}{'total':>8}"
    print(columns + "".join(f"{name:>9}" for name in pipes))
    for name, spec in specs(arguments.size).items():
        for kernel, zone in zip(("diagonal", "displacements"), cuda.zones(spec), strict=False):
            for arch in arguments.arch:
                cubin, log = compile_module(kernel, zone.options(kernel), arch)
                registers, spills = resources(log)
                counts = hot_loop(disassemble(cubin), spec.size)
                by_pipe = Counter()
                for opcode, count in counts.items():
                    by_pipe[pipe(opcode)] += count
                row = f"{name:14}{kernel:16}{arch:8}{registers:10}{spills:8}{counts.total() / spec.size:8.2f}"
                print(row + "".join(f"{by_pipe[p] / spec.size:9.2f}" for p in pipes))
                if arguments.opcodes:
                    for opcode, count in counts.most_common():
                        print(f"    {opcode:24}{count:6}  {pipe(opcode)}")


if __name__ == "__main__":
    main()
