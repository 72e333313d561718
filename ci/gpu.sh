#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# gpu.sh - what only a GPU can prove, in parts that can be repeated alone:
#
#   ci/gpu.sh FOLDER PART [VARIANT]
#
#   conformance VARIANT  every case of both ops against the reference
#   subset VARIANT       the random cases only: for the rows that are built for tests and
#                        for PTX, so that each compiler and the driver's own are proven
#   shim                 captures, streams, threads, autograd, forks
#   memcheck, racecheck  compute-sanitizer over some cases
#   large                arrays of more than 2^31 elements
#   deterministic        20 runs with the same bits
#   vmamba_digits, mamba_text    the examples reach their marks
#   bench                each row of the published table: checked, then timed
#
# Needs a torch with CUDA, pytest and what was built: MAMBARUN_PATH names the folder with
# libmambarun.so, its variants and the reference (build/cuda/lib if unset). Uses
# pytest-xdist and pytest-timeout if they are here. Each part ends within 8 minutes, or
# after LIMIT seconds if that is set.
# Results are written to FOLDER, to be kept as they are; the last line says "ok PART" or
# "FAILED PART", and the exit status the same.

set -u -o pipefail
[ $# -ge 2 ] || { sed -n '3,/^$/s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
part=$2
variant=${3:-cuda12_sm90}
cd "$(dirname "$0")/.." || exit 1
export MAMBARUN_PATH=${MAMBARUN_PATH:-$PWD/build/cuda/lib}
export PYTHONPATH=$PWD/shim:$PWD/shim/standins${PYTHONPATH:+:$PYTHONPATH}
export PYTHONDONTWRITEBYTECODE=1
python=${PYTHON:-python3}

has() { "$python" -c "import $1" 2>/dev/null; }

# tests ARGUMENTS...: pytest, on several CPUs if it can.
workers=$(($(nproc) > 8 ? 8 : $(nproc)))
options=(-q -p no:cacheprovider --tb=short)
! has pytest_timeout || options+=(--timeout=60 --timeout-method=thread)
# SIGINT, so that pytest still reports what it has.
limit() { timeout --signal INT --kill-after 10 "${LIMIT:-420}" "$@" </dev/null; }
tests() { limit "$python" -m pytest "${options[@]}" "$@"; }
parallel=()
! has xdist || parallel=(-n "$workers")

# judge TEST ARGUMENTS...: conformance of $variant, with its report.
judge() {
    tests "${parallel[@]}" "conformance/$1" --variant "$variant" --require "$variant" \
        --report "$out/$variant.json" --report "$out/$variant.md" "${@:2}"
}

# The driver compiles PTX at the first use and remembers it: once is enough.
preload() {
    MAMBARUN_VARIANT=$variant limit "$python" -c 'import time, torch, mambarun
torch.zeros(1, device="cuda")
begin = time.perf_counter()
mambarun.preload(0)
print(f"all kernels loaded in {time.perf_counter() - begin:.2f} s")'
}

conformance() { judge test_ops.py; }

subset() { preload && judge test_ops.py -k "random"; }

shim() {
    "$python" -c 'import torch, sys
torch.cuda.is_available() or sys.exit("NotSupported: torch finds no GPU here")' || return 1
    tests "${parallel[@]}" -rs shim/tests/test_cuda.py
}

# sanitizer TOOL: each array has its own memory, and nothing lies behind it.
sanitizer() {
    local words=$out/$1-words.txt status=0
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 limit compute-sanitizer --tool "$1" \
        --target-processes all --error-exitcode 99 --print-limit 20 --log-file "$words" \
        "$python" -m pytest -q -p no:cacheprovider --tb=short conformance/test_ops.py \
        --variant "$variant" --require "$variant" --tight -k random-3 || status=$?
    cat "$words"
    return $status
}
memcheck() { sanitizer memcheck; }
racecheck() { sanitizer racecheck; }

large() {
    tests conformance/test_large.py --variant "$variant" --require "$variant" -s
}

deterministic() {
    tests conformance/test_repeats.py --variant "$variant" --require "$variant" -s
}

vmamba_digits() {
    limit "$python" examples/vmamba_digits.py --device cuda --out "$out/digits.png"
}
mamba_text() { limit "$python" examples/mamba_text.py --device cuda; }

bench() { limit "$python" bench/gpu.py --json "$out/bench.json"; }

case $part in
conformance | subset) log=$part-$variant ;;
shim | memcheck | racecheck | large | deterministic | vmamba_digits | mamba_text | bench)
    log=$part
    ;;
*) echo "there is no part $part: see the head of $0" && exit 2 ;;
esac
begin=$SECONDS
if "$part" 2>&1 | tr '\r' '\n' | tee "$out/$log.txt"; then
    verdict=ok
else
    verdict=FAILED
fi
echo "$verdict $part ($variant, $((SECONDS - begin)) s)" | tee -a "$out/$log.txt"
[ "$verdict" = ok ]
