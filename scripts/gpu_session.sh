#!/usr/bin/env bash
# What to do first on a GPU machine that is lent for a short time, in calls of ten minutes at most; no call needs a
# network, and each stands alone, but for what it finds in STASH. Calls 1 and 2 fit a quarter of an hour.
#
#     scripts/gpu_session.sh 0     nothing but keep what came with this call in STASH
#     scripts/gpu_session.sh 1     memory, disk; the CUDA tests; memory and race checkers; quick acceptance: 4 minutes
#     scripts/gpu_session.sh 2     the whole CNTK-V column of CIFAR-10: 5 minutes
#     scripts/gpu_session.sh 3     the full acceptance, variants first; registers; a profile of each kernel: 10 minutes
#     scripts/gpu_session.sh 4     CNTK-GAP, -V and CNN-GP of CIFAR-10 with 2,000 training images: 9 minutes
#     DRY=1 scripts/gpu_session.sh N     the same steps at toy size, on a machine without a GPU
#
# OUT     where logs, JSON and Markdown go (results-gpu)
# WHEELS  a folder with the wheels that the machine lacks, such as zarr and pydantic with what they need (wheels)
# PARTS   a folder with CIFAR-10 as one cifar10.npz, or as part-*.npz that were cut along the first axis (parts):
#         each call keeps what it finds there in STASH, so that a part may travel with each call
# STASH   a folder that outlives a call, best in memory (/dev/shm/cntk-bench)
#
# A step that fails or takes too long loses no other: OUT/call-N.txt tells each step's exit code and seconds, and
# OUT/call-N.tar.gz holds all logs.
set -uo pipefail
cd "$(dirname "$0")/.."
call=${1:-}
case $call in [0-4]) ;; *) sed -n '2,19s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
OUT=${OUT:-results-gpu} WHEELS=${WHEELS:-wheels} PARTS=${PARTS:-parts} STASH=${STASH:-/dev/shm/cntk-bench}
DRY=${DRY:-}
mkdir -p "$OUT" "$STASH" && OUT=$(realpath "$OUT") STASH=$(realpath "$STASH")
python=${PYTHON:-python3}
unset PYTEST_ADDOPTS  # what the user adds to calls of pytest is not for this one
export PYTHONPATH=$STASH/site:$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-$STASH/numba}
: >"$OUT/call-$call.txt"

# step SECONDS NAME COMMAND...: run a command for so long at most; its output goes to OUT/NAME.log.
step() {
    local most=$1 name=$2 begun=$SECONDS code
    shift 2
    timeout --kill-after=10 "$most" "$@" >"$OUT/$name.log" 2>&1
    code=$?
    echo "$name: exit code $code, $((SECONDS - begun)) s" | tee -a "$OUT/call-$call.txt"
    return $code
}

# size FULL TOY: what this run takes.
size() { if [[ $DRY ]]; then echo "$2"; else echo "$1"; fi; }

shopt -s nullglob
wheels=("$WHEELS"/*.whl)
if ((${#wheels[@]})); then
    step 60 wheels "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade \
        --target "$STASH/site" "${wheels[@]}"
fi
parts=("$PARTS"/*.npz)
if ((${#parts[@]})); then cp -f "${parts[@]}" "$STASH/"; fi

backend=$(size cuda cpu)

# cifar10: all of CIFAR-10 in one file, from the parts in STASH; DATA is what a config is told of it.
cifar10() {
    local data=$STASH/$(size cifar10 toy).npz
    step 60 join "$python" - "$data" "$STASH" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np

target, stash = Path(sys.argv[1]), Path(sys.argv[2])
parts = sorted(stash.glob("part-*.npz"))
if target.name == "toy.npz":
    x, y = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8), np.arange(60) % 10
    np.savez(target, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
elif not target.exists():
    loaded = [np.load(part) for part in parts]
    np.savez(target, **{name: np.concatenate([part[name] for part in loaded]) for name in loaded[0].files})
print(target, target.stat().st_size)
PYTHON
    DATA=(--set "dataset={name: $(size cifar10 npz), path: $data}")
    if [[ $DRY ]]; then DATA+=(--set 'kernel.depths=[3]'); fi
}

# column SECONDS NAME CONFIG OPTION...: compute and solve it; its report and record go to OUT, its store nowhere.
column() {
    local most=$1 name=$2 config=$3
    shift 3
    # The store of the whole CNTK-V column has 36 GB: in memory where there is so much, or the disk may bind.
    local run=$OUT/$name.run
    if (($(df --output=avail -k "$STASH" | tail -1) > 45000000)); then run=$STASH/$name; fi
    step "$most" "$name" "$python" -m cntk_bench run "$config" --backend "$backend" --verbose --output "$run" "$@"
    cp -r "$run/report" "$OUT/$name-report"
    cp "$run/record.json" "$OUT/$name-record.json"
    rm -rf "$run/gram.zarr"
}

case $call in
0) ls -l "$STASH" ;;
1)
    step 10 memory bash -c 'free -g; df -h . /dev/shm; nvidia-smi || echo "no nvidia-smi"'
    step 30 disk dd if=/dev/zero of="$OUT/disk.tmp" bs=1M count="$(size 4000 10)" conv=fsync
    rm -f "$OUT/disk.tmp"
    step 20 packages "$python" -m cntk_bench info
    step 90 cuda-tests "$python" -m pytest -q -p no:cacheprovider "tests/$(size test_cuda.py test_cuda_limit.py)"
    for tool in memcheck racecheck; do  # on small images: the checkers slow kernels down a hundred times
        if command -v compute-sanitizer >/dev/null; then
            step 40 "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -m cntk_bench run \
                configs/quickstart.yaml --backend cuda --output "$STASH/$tool" --set dataset.train=20 \
                --set dataset.test=10 --set 'kernel.depths=[3]'
        else
            echo "$tool: no compute-sanitizer here" | tee -a "$OUT/call-$call.txt"
        fi
    done
    step 130 quick "$python" scripts/gpu_acceptance.py --quick --output "$OUT"
    ;;
2)
    cifar10
    column 420 v configs/cifar10-cntk-v.yaml "${DATA[@]}"
    ;;
3)
    step 540 acceptance "$python" scripts/gpu_acceptance.py --output "$OUT"
    step 30 registers "$python" scripts/count_sass.py --size "$(size 32 5)"
    if command -v ncu >/dev/null; then
        step 60 profile ncu --clock-control none --set full --launch-count 2 -k 'regex:displacements|diagonal' \
            -o "$OUT/profile" "$python" -m cntk_bench bench --backend cuda --seconds 0.1
    else
        echo "profile: no ncu here" | tee -a "$OUT/call-$call.txt"
    fi
    ;;
4)
    cifar10
    column 580 gap-2k configs/cifar10-cntk-gap.yaml "${DATA[@]}" --set 'kernel.columns=[CNTK-GAP, CNTK-V, CNN-GP-GAP, CNN-GP-V]' \
        --set "dataset.train=$(size 2000 20)"
    ;;
esac
cat "$OUT/call-$call.txt"

# Few files to bring home: all of them in one archive, and beside it what is read at once.
tar -czf "$OUT/call-$call.tar.gz" -C "$OUT" --exclude='*.tar.gz' --exclude=gram.zarr .
find "$OUT" -mindepth 1 -maxdepth 1 ! -name '*.tar.gz' ! -name '*.json' ! -name '*.md' ! -name 'call-*.txt' \
    -exec rm -rf {} +
