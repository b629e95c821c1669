#!/usr/bin/env bash
# What to do first on a GPU that can be used only for minutes at a time, such as a node in a cluster's test queue. A
# call takes ten minutes at most and needs no network; calls share nothing but STASH. The first four take a quarter
# of an hour in all; of the others, two or so fit into another one.
#
#     scripts/gpu_steps.sh checks        memory; the CUDA tests; all stages on made-up images: 2 minutes
#     scripts/gpu_steps.sh quick         the quick acceptance: 2 minutes
#     scripts/gpu_steps.sh sanitizers    the memory and the race checker: 1 minute
#     scripts/gpu_steps.sh v             the whole CNTK-V column of CIFAR-10: 5 minutes
#     scripts/gpu_steps.sh acceptance    the full acceptance, variants first; registers: 9 minutes
#     scripts/gpu_steps.sh profile       each kernel's counters: 2 minutes
#     scripts/gpu_steps.sh gap-2k        CNTK-GAP, -V and CNN-GP of CIFAR-10 with 2,000 training images: 9 minutes
#     scripts/gpu_steps.sh lap-2k        CNTK-LAP and CNN-GP-LAP, all windows, also flipped, same images: 7 minutes
#     scripts/gpu_steps.sh cifar2-gap    CNTK-GAP, -V and CNN-GP of CIFAR-2, all images, DEPTHS: 9 minutes
#     scripts/gpu_steps.sh low-data      CNTK-GAP of ten draws of 10 to 1,280 training images: 7 minutes
#     scripts/gpu_steps.sh networks      CNN-V and CNN-GAP beside their kernels, with 2,000 training images: 6 minutes
#     scripts/gpu_steps.sh keep          only copy what is in PARTS to STASH
#     DRY=1 scripts/gpu_steps.sh CALL    the same steps at toy size, on a machine without a GPU
#
# OUT     where logs, JSON and Markdown go (results-gpu)
# WHEELS  a folder with the wheels that the machine lacks, such as zarr and pydantic with what they need (wheels)
# PARTS   a folder with CIFAR-10 as one cifar10.npz, or as part-*.npz that were cut along the first axis (parts):
#         each call copies what it finds there to STASH, so that the parts may be brought one by one
# STASH   a folder that outlives a call, best in memory (/dev/shm/cntk-bench)
# DEPTHS  of cifar2-gap ([3, 4, 6]); [3, 4, 6, 11] take two or three calls, [3, 4, 6, 11, 21] four or five
# CNTK_BENCH_COMMIT  what records are to say of the commit, where git is not at hand
#
# No time is measured: all are estimates, for an H200. GAP is assumed to pass 48,000 pairs per second through 20 layers
# (kernels_cuda/README.md), and proportionally more through fewer:
#
#     gap-2k      22.0 million pairs, 20 layers: 460 s
#     lap-2k      2 x 22.0 million pairs, the 5 layers of Li et al.: 230 s
#     cifar2-gap  70.0 million pairs, 5 layers: 365 s; 10 layers: 730 s; 20 layers: 1,460 s
#     low-data    21.0 million pairs, 14 layers: 310 s
#     networks    22.0 million pairs, 3 layers: 70 s; 8 networks, 1.0e16 operations at 80 % of the FMA units' peak: 190 s
#
# First layers, what is read (much in lap-2k), writing and solving may add a third. LAP has a pass of its own: it trains
# all layers and GAP the hidden ones, and a pass with both states needs 35.9 instructions instead of 26.5, for 2,000
# images 620 s.
#
# A step that fails or takes too long loses no other: OUT/call-CALL.txt tells each step's exit code and seconds, and
# OUT/call-CALL.tar.gz holds all logs. What a call has computed or trained stays in STASH until it is solved: the same
# call goes on from there, as long as STASH is kept.
set -uo pipefail
cd "$(dirname "$0")/.."
call=${1:-}
case $call in
checks | quick | sanitizers | v | acceptance | profile | keep) ;;
gap-2k | lap-2k | cifar2-gap | low-data | networks) ;;
*) sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
OUT=${OUT:-results-gpu} WHEELS=${WHEELS:-wheels} PARTS=${PARTS:-parts} STASH=${STASH:-/dev/shm/cntk-bench}
DRY=${DRY:-}
# room FOLDER: GB that are free there.
room() { echo $(($(df --output=avail -k "$1" | tail -1) / 1000000)); }
# Where memory grows on demand, /dev/shm has half of what there was at first.
if [[ ! $DRY && $EUID == 0 && $STASH == /dev/shm/* ]]; then
    mount -o remount,size=100g /dev/shm || mount -t tmpfs -o size=100g tmpfs /dev/shm
    if (($(room /dev/shm) < 1)); then STASH=${TMPDIR:-/var/tmp}/cntk-bench; fi
fi
mkdir -p "$OUT" "$STASH" && OUT=$(realpath "$OUT") STASH=$(realpath "$STASH") || exit 2
LOGS=$(mktemp -d "$OUT/logs-XXXXXX") || exit 2
python=${PYTHON:-python3}
unset PYTEST_ADDOPTS  # the user's own options for pytest are not for this call
export PYTHONPATH=$STASH/site:$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export NUMBA_CACHE_DIR=${NUMBA_CACHE_DIR:-$STASH/numba}
: >"$OUT/call-$call.txt"

# tell WORDS: print them, and append them to the file of this call.
tell() { echo "$*" | tee -a "$OUT/call-$call.txt"; }

# step SECONDS NAME COMMAND...: run a command within a time limit; its output goes to LOGS/NAME.log.
step() {
    local most=$1 name=$2 begun=$SECONDS code
    shift 2
    timeout --kill-after=10 "$most" "$@" >"$LOGS/$name.log" 2>&1
    code=$?
    tell "$name: exit code $code, $((SECONDS - begun)) s"
    return $code
}

# size FULL TOY: print FULL, or in a dry run TOY.
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

# made_up N M P FILE: N training and M test images of P x P random pixels.
made_up() {
    step 60 made-up "$python" - "$@" <<'PYTHON'
import sys

import numpy as np

n, m, p = map(int, sys.argv[1:4])
x, y = np.random.default_rng(0).integers(0, 256, (n + m, p, p, 3), np.uint8), np.arange(n + m) % 10
np.savez(sys.argv[4], x_train=x[:n], y_train=y[:n], x_test=x[n:], y_test=y[n:])
PYTHON
    DATA=(--set dataset.name=npz --set "dataset.path=$4")
}

# cifar10: join all of CIFAR-10 in one file, from the parts in STASH; DATA has the options that name it.
cifar10() {
    if [[ $DRY ]]; then
        made_up 40 20 8 "$STASH/toy.npz"
        DATA+=(--set "kernel.depths=${DEPTHS:-[3]}")
        return
    fi
    step 60 join "$python" scripts/join_npz.py "$STASH/cifar10.npz" 50000 10000 "$STASH"/part-*.npz
    DATA=(--set dataset.name=cifar10 --set "dataset.path=$STASH/cifar10.npz")
}

# column SECONDS NAME CONFIG OPTION...: compute, train and solve it; its record goes to OUT, its report to LOGS.
column() {
    local most=$1 name=$2 config=$3 run=$STASH/$2.run code
    shift 3
    local solve=(--set solve.solver=cholesky --set solve.precision=float64)
    # Where memory grows on demand, the free memory says little; and iterating on the CPU instead would take hours.
    if [[ ! $DRY ]]; then solve+=(--set solve.device=cuda --set solve.memory=64); fi
    step "$most" "$name" "$python" -m cntk_bench run "$config" --backend "$backend" --verbose --output "$run" \
        "${solve[@]}" "$@"
    code=$?
    tail -n 30 "$LOGS/$name.log"  # which is returned with the answer even if files are not
    cp "$run/record.json" "$OUT/$name-record.json"
    if [[ -d $run/report ]]; then
        cp -r "$run/report" "$LOGS/$name-report"
    else  # stopped: the cells that were solved until then
        local cells=("$run"/solves/.solving-*/cells/*.json)
        if ((${#cells[@]})); then cat "${cells[@]}" >"$OUT/$name-cells.json"; fi
    fi
    return $code
}

# forget NAME: remove the Gram matrices of a column, once nothing more is to be done with them.
forget() { rm -rf "$STASH/$1.run/gram.zarr"; }

case $call in
keep) ls -l "$STASH" ;;
checks)
    step 10 memory bash -c 'free -g; df -h . /dev/shm; nvidia-smi || echo "no nvidia-smi"'
    step 60 growing dd if=/dev/zero of="$STASH/growing.tmp" bs=1M count="$(size 8000 10)"  # how fast memory grows
    rm -f "$STASH/growing.tmp"
    step 20 packages "$python" -m cntk_bench info
    at_once=()
    if "$python" -c 'import xdist' 2>/dev/null; then at_once=(-n 8); fi
    step 90 cuda-tests "$python" -m pytest -q "${at_once[@]}" -p no:cacheprovider \
        "tests/$(size test_cuda.py test_cuda_limit.py)"
    made_up $(size "3000 500 32" "40 20 8") "$STASH/made-up.npz"
    column 90 smoke configs/cifar10-cntk-v.yaml "${DATA[@]}" && forget smoke
    ;;
quick)
    step 130 quick "$python" scripts/gpu_acceptance.py --quick --output "$OUT"
    ;;
sanitizers)
    # On small images: the tools slow kernels down a hundred times. Without a memory pool, in which an access beyond
    # an array's end may still be inside an allocation; and without the solve, whose kernels are libraries'.
    for tool in memcheck racecheck; do
        rm -rf "${STASH:?}/$tool"  # or nothing would be left to compute
        if command -v compute-sanitizer >/dev/null; then
            step 50 "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -c \
                'import cupy, runpy; cupy.cuda.set_allocator(None); runpy.run_module("cntk_bench", run_name="__main__")' \
                compute configs/quickstart.yaml --backend cuda --output "$STASH/$tool" --set dataset.train=20 \
                --set dataset.test=10 --set 'kernel.depths=[3]'
        else
            tell "$tool: no compute-sanitizer here"
        fi
    done
    ;;
v)
    cifar10
    # The store takes 36 GB, or 16 with 30,000 images. Another call continues with the same number.
    fewer=()
    if [[ ! $DRY && ! -e $STASH/v.run ]] && (($(room "$STASH") < 42)); then
        tell "v: only $(room "$STASH") GB are free in $STASH, so with 30,000 training images"
        touch "$STASH/v.fewer"
    fi
    if [[ -e $STASH/v.fewer ]]; then fewer=(--set dataset.train=30000); fi
    column 420 v configs/cifar10-cntk-v.yaml "${DATA[@]}" "${fewer[@]}" && forget v
    ;;
acceptance)
    step 500 acceptance "$python" scripts/gpu_acceptance.py --output "$OUT"
    step 30 registers "$python" scripts/count_sass.py --size "$(size 32 5)"
    ;;
profile)  # profiles one launch, of a whole tile, in the middle of a run
    made_up $(size "3000 100 32" "40 20 8") "$STASH/made-up.npz"
    for kernel in diagonal:CNTK-V:3000:2 displacements:CNTK-GAP:64:20; do
        IFS=: read -r name column train skip <<<"$kernel"
        rm -rf "${STASH:?}/profile-$name"  # or nothing would be left to compute
        if command -v ncu >/dev/null; then
            step 60 "$name" ncu --clock-control none --set full -k "regex:$name" --launch-skip "$skip" \
                --launch-count 1 -o "$LOGS/$name" "$python" -m cntk_bench compute configs/cifar10-cntk-v.yaml \
                --backend cuda --output "$STASH/profile-$name" "${DATA[@]}" --set "kernel.columns=[$column]" \
                --set "dataset.train=$train"
        else
            tell "$name: no ncu here"
        fi
    done
    ;;
gap-2k)
    cifar10
    column 480 gap-2k configs/cifar10-cntk-gap.yaml "${DATA[@]}" --set "dataset.train=$(size 2000 20)" \
        --set 'kernel.columns=[CNTK-GAP, CNTK-V, CNN-GP-GAP, CNN-GP-V]' && forget gap-2k
    ;;
lap-2k)
    cifar10
    column 480 lap-2k configs/cifar10-lap.yaml "${DATA[@]}" --set "dataset.train=$(size 2000 20)" \
        --set dataset.test=null && forget lap-2k
    ;;
cifar2-gap)
    cifar10
    column 480 cifar2-gap configs/cifar2-cntk-v.yaml --set "kernel.depths=${DEPTHS:-[3, 4, 6]}" "${DATA[@]}" \
        --set 'kernel.columns=[CNTK-GAP, CNTK-V, CNN-GP-GAP, CNN-GP-V]' && forget cifar2-gap
    ;;
low-data)
    cifar10
    # As many test images as in results/cifar10-low-data.md: all 10,000 would take half an hour.
    column 420 low-data configs/cifar10-low-data.yaml "${DATA[@]}" --set "dataset.train=$(size 1280 4)" \
        --set "dataset.test=$(size 1000 20)" &&
        step 50 curve "$python" -m cntk_bench curve "$STASH/low-data.run" \
            --sizes "$(size 10,20,40,80,160,320,640,1280 2,4)" && forget low-data
    if [[ -d $STASH/low-data.run/curve ]]; then cp -r "$STASH/low-data.run/curve" "$LOGS/low-data-curve"; fi
    ;;
networks)
    if "$python" -c 'import torch' 2>/dev/null; then
        cifar10
        column 480 networks configs/cifar10-four-columns-small.yaml --set 'kernel.depths=[3, 4]' "${DATA[@]}" \
            --set "dataset.train=$(size 2000 20)" --set dataset.test=null --set "network.width=$(size 256 4)" \
            --set 'network.rates={CNN-V: [100, 250], CNN-GAP: [400, 1000]}' --set network.batch=128 \
            --set network.trials=1 --set "network.epochs=$(size 100 2)" \
            --set network.curve=false --set 'kernel.columns=[CNN-V, CNTK-V, CNN-GAP, CNTK-GAP]' && forget networks
    else
        tell "networks: no PyTorch here"
    fi
    ;;
esac
cat "$OUT/call-$call.txt"

# Few files to transfer: all logs in one archive, and beside it what is read first.
tar -czf "$OUT/call-$call.tar.gz" -C "$LOGS" . && rm -rf "$LOGS"
