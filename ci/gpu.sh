#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# gpu.sh - what only a GPU can prove, about the wheel that a user installs:
#
#   ci/gpu.sh FOLDER PART...
#   ci/gpu.sh FOLDER all
#
# FOLDER gets the results, laid out as this repository keeps them, so that
#   cp -r FOLDER/conformance FOLDER/docs .
# does; FOLDER/raw has the rest. PART is one of these, each of which ends within 8 minutes
# (LIMIT seconds, 420 if unset) and can be repeated alone:
#
#   conformance       every case of both ops against the reference
#   subset:VARIANT    the random cases, with another compiler's row or with PTX by force
#   memcheck, racecheck    compute-sanitizer over some cases
#   deterministic     20 runs with the same bits
#   large             arrays of more than 2^31 elements
#   shim              captures, streams, threads, autograd, forks, several GPUs
#   callers           mamba-ssm's and causal-conv1d's functions against their references
#   transformers      MambaForCausalLM: its fast path, against its slow one
#   scan_c            examples/scan.c, compiled here
#   vmamba_digits, mamba_text    the examples reach their marks
#   check             mambarun-check, in all its ways
#   bench, bench:WORD each row of the published table, or those whose name or module has
#                     WORD: checked, then timed
#
# Several parts run JOBS (4) at a time, those that measure time last and alone; a failure
# stops no other. Then docs/results/gpu/summary.md says all that FOLDER holds, and the last
# line and the exit status whether all went well. Results of several runs, be they of
# different machines, are made one by copying their FOLDERs into one, and
#
#   python3 ci/summary.py FOLDER >FOLDER/docs/results/gpu/summary.md
#
# Needs a torch with CUDA, and out/gpu, which ci/wheel.sh and ci/carry.sh make; no
# network. Installs the wheel, and pytest, into a virtual environment of its own below
# SITE (out/gpu-site) on top of PYTHON (python3). VARIANT: the row to prove (the one that
# mambarun takes for the first GPU). UPSTREAM: a folder with one or more of upstream's
# modules, compiled for this Python, torch and GPU, which bench then times too.

# shellcheck disable=SC2317 # parts are called by their names
set -u -o pipefail
[ $# -ge 2 ] || { sed -n '3,/^$/s/^# \{0,1\}//p' "$0"; exit 2; }
[ -z "${UPSTREAM:-}" ] || UPSTREAM=$(cd "$UPSTREAM" && pwd) || exit 2
mkdir -p "$1"/docs/results/gpu "$1"/conformance/results "$1"/raw
out=$(cd "$1" && pwd)
said=$out/docs/results/gpu raw=$out/raw
shift
cd "$(dirname "$0")/.." || exit 1
root=$PWD
carried=$root/out/gpu
site=${SITE:-$root/out/gpu-site}
python=$site/bin/python
export PYTHONDONTWRITEBYTECODE=1
unset MAMBARUN_PATH MAMBARUN_VARIANT

all=(conformance callers shim subset:cuda11_ptx80 transformers memcheck racecheck
    vmamba_digits mamba_text subset:cuda13_sm90 subset:cuda11_sm90 deterministic large
    scan_c check bench)
alone=" check bench " # they measure time

# ---- what is installed ----------------------------------------------------------------

# A virtual environment that also sees the packages of the Python it is made with, even
# where that is one itself; and a folder of links to what the wheel installed, beside
# the reference and the test-only rows.
install_site() {
    rm -rf "$site"
    "${PYTHON:-python3}" -m venv --without-pip "$site" &&
        "${PYTHON:-python3}" - "$python" <<'PYTHON' &&
import pathlib, subprocess, sys, sysconfig
say = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
mine = subprocess.check_output([sys.argv[1], "-c", say], text=True).strip()
below = sysconfig.get_paths()["purelib"]
pathlib.Path(mine, "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
PYTHON
        "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps \
            --ignore-installed "$carried"/wheels/*.whl || return 1
    cp "$carried/commit.txt" "$(installed)/.." # for the reports
    mkdir "$site/lib-of-tests"
    ln -s "$(installed)"/*.so "$(installed)"/../conformance/*.so "$carried"/lib/*.so \
        "$site/lib-of-tests" || return 1
    sums >"$site/complete"
}

# What a site was made of.
sums() { cksum "$carried"/wheels/*.whl "$carried"/lib/*.so "$carried/commit.txt"; }

# The folder of the installed libraries.
installed() {
    "$python" -c 'import mambarun._lib, os; print(os.path.dirname(mambarun._lib.find()))'
}

need_site() {
    ls "$carried"/wheels/mambarun-*.whl >/dev/null ||
        { echo "no wheel in $carried: see the head of $0" && exit 1; }
    [ ! -f "$site/complete" ] || sums | cmp -s - "$site/complete" || rm "$site/complete"
    [ -f "$site/complete" ] || install_site || { echo "cannot install" && exit 1; }
    git describe --always >/dev/null 2>&1 || cp "$carried/commit.txt" .
    "$python" -c 'import torch, sys
torch.cuda.is_available() or sys.exit("NotSupported: torch finds no GPU here")' || exit 1
    VARIANT=${VARIANT:-$("$python" -c 'import mambarun; print(mambarun.preload(0))')} ||
        exit 1
}

# ---- the parts ------------------------------------------------------------------------

# limit COMMAND...: it has the time that its part has left. SIGINT, so that pytest still
# reports what it has.
limit() {
    local left=$((${LIMIT:-420} + began - SECONDS))
    [ $left -gt 0 ] || { echo "no time is left for $1" && return 124; }
    timeout --signal INT --kill-after 10 "$left" "$@" </dev/null
}

# tests ARGUMENTS...: pytest, on several CPUs.
workers=$(($(nproc) > 8 ? 8 : $(nproc)))
tests() {
    limit "$python" -m pytest -q -rs -p no:cacheprovider -p no:benchmark \
        --tb=short --timeout=120 --timeout-method=thread --durations=5 \
        --junitxml="$raw/$name.xml" "$@"
}

# suite FILE ARGUMENTS...: a file of the conformance suite about $variant.
suite() {
    MAMBARUN_PATH=$site/lib-of-tests PYTHONPATH=$carried/callers${PYTHONPATH:+:$PYTHONPATH} \
        tests "conformance/$1" --variant "$variant" --require "$variant" "${@:2}"
}
# judge ARGUMENTS...: the wheel's own conformance command about $variant. A fault of the
# GPU fails one case, whose process another one follows. MAMBARUN_PATH is for the rows
# that no wheel has.
judge() {
    local status=0 kind
    rm -rf "${raw:?}/$variant" "$out/conformance/results/$variant".*
    MAMBARUN_PATH=$carried/lib limit "$python" -m mambarun.conformance --require \
        --provider "mambarun:$variant" --jobs "$workers" --report "$raw/$variant" "$@" ||
        status=$?
    for kind in json md; do
        mv "$raw/$variant/mambarun-$variant.$kind" "$out/conformance/results/$variant.$kind"
    done
    return "$status"
}

conformance() { judge; }

# PTX is compiled by the driver at the first use, which remembers it: once is enough.
subset() {
    MAMBARUN_PATH=$carried/lib MAMBARUN_VARIANT=$variant limit "$python" -c '
import time, torch, mambarun
torch.zeros(1, device="cuda")
begin = time.perf_counter()
mambarun.preload(0)
print(f"all kernels loaded in {time.perf_counter() - begin:.2f} s")' && judge --only '*/random-*'
}

# sanitizer TOOL: each array has its own memory, and nothing lies behind it.
sanitizer() {
    local words=$said/$name-words.txt status=0
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 MAMBARUN_PATH=$site/lib-of-tests \
        limit compute-sanitizer --tool "$1" --target-processes all --error-exitcode 99 \
        --print-limit 20 --log-file "$words" "$python" -m pytest -q \
        -p no:cacheprovider -p no:benchmark -p no:xdist --tb=short \
        --junitxml="$raw/$name.xml" conformance/test_ops.py --variant "$variant" \
        --require "$variant" --tight -k "random-2 or random-3" || status=$?
    cat "$words"
    return "$status"
}
memcheck() { sanitizer memcheck; }
racecheck() { sanitizer racecheck; }

deterministic() { suite test_repeats.py; }
large() { suite test_large.py; }
shim() { tests -n "$workers" shim/tests/test_cuda.py; }
callers() { suite test_upstream.py -n 4; }
transformers() { suite test_transformers.py; }

scan_c() {
    local lib
    lib=$(installed) &&
        limit cc -std=c11 -Wall -Wextra -Werror examples/scan.c -o "$site/scan" -Ilibmambarun \
            -L"$lib" -lmambarun -Wl,-rpath,"$lib" -lm -ldl &&
        limit "$site/scan" | tee "$site/scan.txt" &&
        [ "$(grep -c '^0 of [0-9]* differ' "$site/scan.txt")" = 2 ]
}

vmamba_digits() {
    limit "$python" examples/vmamba_digits.py --device cuda --out "$raw/digits.png"
}
mamba_text() { limit "$python" examples/mamba_text.py --device cuda; }

# The answers go to docs/results, and none has the name of this machine.
check() {
    local results=$out/docs/results status=0 code begin command
    local report=$results/check_gpu_report.txt
    local commands=(
        "mambarun-check --no-run -v"
        "mambarun-check --run --bench -v --report $report"
        "mambarun-check --run --lang zh"
        "mambarun-check --require gpu,sm_${variant##*sm},$variant -q"
        "python -m mambarun --json --no-run")
    for command in "${commands[@]}"; do
        echo "\$ ${command//$out\//}"
        begin=$(date +%s%N) code=0
        # shellcheck disable=SC2086 # words
        PATH=$site/bin:$PATH limit $command || code=$?
        echo "# status $code, $((($(date +%s%N) - begin) / 1000000)) ms"
        [ $code = 0 ] || status=1
        echo
    done >"$results/check_gpu.txt" 2>&1
    grep -e '^[$#] ' "$results/check_gpu.txt"
    # A name without a digit or a dash may be a word that is there anyway.
    [[ $(uname -n) != *[-0-9]* ]] ||
        ! grep -w -e "$(uname -n)" "$results/check_gpu.txt" "$report" || status=1
    return "$status"
}

bench() {
    limit "$python" bench/gpu.py --only "$of" --json "$said/$name.json" \
        ${UPSTREAM:+--upstream "$UPSTREAM"}
}

# ---- running them ---------------------------------------------------------------------

is_part() {
    case $1 in
    subset:?* | bench:?*) ;;
    *) [[ " ${all[*]} " == *" $1 "* ]] ;;
    esac
}

# name_of PART: for its files, bench-VMamba_stage of "bench:VMamba stage".
name_of() { sed 's/:/-/; s/[^A-Za-z0-9_.-]/_/g' <<<"$1"; }

# run_part PART: all that it says is kept, with its verdict in the last line, which
# is also shown. Nothing of an earlier run of it stays.
run_part() {
    local part=${1%%:*} verdict=FAILED
    began=$SECONDS name=$(name_of "$1") variant=$VARIANT of=${1#"$part"}
    of=${of#:}
    [ "$part" != subset ] || variant=$of
    rm -f "$raw/$name.xml" "$said/$name.json" "$said/$name-words.txt"
    cp "$raw/machine.txt" "$raw/$name.machine"
    ! "$part" >"$said/$name.txt" 2>&1 || verdict=ok
    sed -i 's/\r/\n/g' "$said/$name.txt"
    echo "$verdict $name ($variant, $((SECONDS - began)) s)" | tee -a "$said/$name.txt"
}

# What the summary says first.
describe_machine() {
    date -u '+date: %Y-%m-%d %H:%M UTC'
    echo "commit: $(cat "$carried/commit.txt")"
    echo "wheel: $(basename "$carried"/wheels/mambarun-*.whl)"
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader |
        sed 's/^/gpu: /'
    echo "cpu: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs"
    "$python" -c 'import sys, torch
print(f"python: {sys.version.split()[0]}, torch {torch.__version__}")'
}

[ "$1" != all ] || set -- "${all[@]}"
for part; do
    is_part "$part" || { echo "there is no part $part: see the head of $0" && exit 2; }
done
[[ ${JOBS:=4} =~ ^[1-9][0-9]*$ ]] || { echo "JOBS is $JOBS: must be 1 or more" && exit 2; }
need_site
describe_machine >"$raw/machine.txt"
for part; do
    [[ $alone != *" ${part%%:*} "* ]] || continue
    while [ "$(jobs -pr | wc -l)" -ge "$JOBS" ]; do
        wait -n
    done
    run_part "$part" &
done
wait
for part; do
    [[ $alone != *" ${part%%:*} "* ]] || run_part "$part"
done
# Where the checkout lies is nobody's business.
grep -rlIF "$PWD" "$out" | xargs -r sed -i "s|$PWD/||g; s|$PWD\b|.|g"
[ $# != 1 ] || cat "$said/$(name_of "$1").txt"
"$python" ci/summary.py "$out" >"$said/summary.md"
