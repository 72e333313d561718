#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# test.sh - everything that a change must pass, on a machine without a GPU: sets up what
# it needs, runs every stage even if one fails, and ends with one line,
# "N passed, N failed, N skipped". Logs and reports are left in out/ci/.
# What takes longer is in full.sh.

# shellcheck source=ci/setup.sh
. "$(dirname "$0")/setup.sh"

passed=0 failed=0 skipped=0 finished=

# However this script ends, its last line tells the truth.
finish() {
    [ -n "$finished" ] || failed=$((failed + 1))
    echo "$passed passed, $failed failed, $skipped skipped"
    exit $((failed > 0 || passed == 0)) # a bare exit would keep the status from before
}
trap finish EXIT

# add NAME SECONDS PASSED FAILED SKIPPED: one line for a stage.
add() {
    passed=$((passed + $3)) failed=$((failed + $4)) skipped=$((skipped + $5))
    say "$([ "$4" = 0 ] && echo ok || echo FAILED) $1: $3 passed, $4 failed, $5 skipped ($2 s)"
}

# check NAME COMMAND...: a stage whose exit status is its result.
check() {
    local name=$1 begin=$SECONDS
    shift
    if quietly "$name" "$@"; then
        add "$name" $((SECONDS - begin)) 1 0 0
    else
        add "$name" $((SECONDS - begin)) 0 1 0
    fi
}

# runner NAME REPORT DETAILS COMMAND...: a stage that writes REPORT (see results.py).
runner() {
    local name=$1 report=$2 details=$3 begin=$SECONDS status=0 counts
    shift 3
    rm -f "$report"
    quietly "$name" "$@" || status=$?
    counts=$(.venv/bin/python ci/results.py $status "$report" "$details") || counts="0 1 0"
    # shellcheck disable=SC2086 # three words
    add "$name" $((SECONDS - begin)) $counts
}

# tests NAME PYTHON ARGUMENTS...: pytest as a stage.
tests() {
    local name=$1 python=$2 report=$logs/${1//[ \/]/_}.xml
    shift 2
    runner "$name" "$report" "" "$python" -m pytest -p no:cacheprovider -q -ra \
        --junitxml="$report" "$@"
}

# skip NAME REASON
skip() {
    say "skipped $1: $2"
    skipped=$((skipped + 1))
}

# c_tests PRESET: builds it and runs the CMocka programs.
c_tests() {
    local preset=$1 report=$logs/ctest_$1.xml details=build/$1/cmocka
    build() { cmake --preset "$preset" && cmake --build --preset "$preset"; }
    check "build $preset" build
    rm -rf "$details" && mkdir -p "$details"
    CMOCKA_MESSAGE_OUTPUT=XML runner "ctest $preset" "$report" "$details" \
        ctest --preset "$preset" --output-junit "$report"
}

# conformance VARIANT: all of it must pass, unless this machine cannot run the variant.
conformance() {
    local name="conformance $1" verdict
    verdict=$(MAMBARUN_PATH=$lib python -c 'import sys, mambarun
for variant in mambarun.info()["variants"]:
    if variant["name"] == sys.argv[1] and not variant["usable"]:
        print("NotSupported:", variant["reason"])' "$1") || verdict=
    if [ -n "$verdict" ]; then
        skip "$name" "$verdict"
        return
    fi
    MAMBARUN_PATH=$lib tests "$name" python conformance/test_ops.py \
        --variant "$1" --require "$1"
}

# other_python VERSION TORCH: the shim's tests on another Python and another torch.
other_python() {
    local version=$1 torch=$2 name="shim on Python $1, torch $2" python folder from=()
    folder=$root/.venvs/python$version-torch$torch
    python=$(interpreter "$version") || {
        skip "$name" "no Python $version here (looked on PATH and in ~/.pyenv/versions)"
        return
    }
    if [ ! -e "$folder/complete" ]; then
        rm -rf "$folder"
        ! answers "$cpu_index/torch/" || from=(--extra-index-url "$cpu_index")
        make_it() {
            "$python" -m venv "$folder" &&
                "$folder/bin/python" -m pip install --disable-pip-version-check \
                    "${from[@]}" "torch==$torch" "$(numpy_for "$torch")" pytest
        }
        if ! quietly "$name, set up" make_it; then
            skip "$name" "pip could not install torch==$torch for Python $version"
            return
        fi
        touch "$folder/complete"
    fi
    if ! quietly "$name, install" "$folder/bin/python" -m pip install -q --no-deps \
        --disable-pip-version-check --force-reinstall "$wheels"/mambarun-*.whl; then
        add "$name" 0 0 1 0
        return
    fi
    tests "$name" "$folder/bin/python" shim/tests
}

# interpreter VERSION: a python that runs, not a pyenv shim that only says no.
interpreter() {
    local candidate
    for candidate in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
        if "$candidate" -c 'import venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

if pkg-config --exists cmocka 2>/dev/null; then
    need_system
else
    need_system libcmocka-dev pkg-config
fi
need_venv
need_torch
need_python scikit-learn matplotlib pytest cmake ninja
export PATH=$root/.venv/bin:$PATH
lib=$root/build/test/lib
wheels=$root/out/wheel
say "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(cc --version | head -n 1)"
say "$(uname -srm), $CMAKE_BUILD_PARALLEL_LEVEL CPUs:$(sed -n 's/^model name[^:]*://p' /proc/cpuinfo | head -n 1)"

c_tests test
tests ci python ci/tests
check symbols.sh bash ci/checks/symbols.sh "$lib"

# One CUDA row per toolkit and the PTX row; wheel.sh builds them all.
cuda_rows=(cuda12_sm90 cuda11_sm80 cuda13_sm110 cuda11_ptx80)
build_cuda() {
    cmake -G Ninja -S . -B build/cuda -DCMAKE_BUILD_TYPE=Release -DMAMBARUN_WERROR=ON \
        "${nvrtc[@]}" "-DMAMBARUN_ONLY=cpu_scalar;$(IFS=';' && echo "${cuda_rows[*]}")" &&
        cmake --build build/cuda
}
# Nothing is compiled twice: not in this folder, nor in a new one with the same cache.
build_cuda_again() {
    cmake --build build/cuda | grep 'no work to do' && touch build/cuda/before &&
        rm -r build/cuda/kernels && cmake --build build/cuda &&
        ! find out/kernels -newer build/cuda/before -type f | grep .
}
if need_nvrtc; then
    check "build cuda" build_cuda
    check "build cuda again" build_cuda_again
    check cubins.py python ci/checks/cubins.py --except-size build/cuda "${cuda_rows[@]}"
    if too_large=$(python ci/checks/cubins.py build/cuda "${cuda_rows[@]}"); then
        add "size of the CUDA rows" 0 1 0 0
    else
        skip "size of the CUDA rows" "not reached: $(grep 'at most' <<<"$too_large" | paste -sd ';')"
    fi
    check "symbols.sh cuda" bash ci/checks/symbols.sh build/cuda/lib
else
    skip "build cuda" "pip could not install NVRTC"
fi

check "pip install ." need_mambarun
# Only now: they import mambarun, of which an earlier one may have been installed.
for script in rooms layout abi codes; do
    check "$script.py" python ci/checks/$script.py
done
tests shim python shim/tests
MAMBARUN_PATH=$lib tests "conformance reference" python conformance/test_reference.py
MAMBARUN_PATH=$lib tests "conformance suite" python conformance/test_suite.py
tests "conformance cases" python conformance/test_cases.py
while read -r variant; do
    conformance "$variant"
done < <(cpu_variants)
# The command, as users run it: the variants and the stand-ins; and each commit draws
# random cases and values of its own.
check "conformance --quick" env MAMBARUN_PATH="$lib" python -m conformance --quick \
    --report "$logs/conformance"
seed=$(git rev-list --count HEAD 2>/dev/null || echo 1)
check "conformance --seed $seed" env MAMBARUN_PATH="$lib" python -m conformance \
    --seed "$seed" --only '*/random-*'
tests "upstream's callers" ci/callers.sh conformance/test_upstream.py \
    conformance/test_transformers.py
check "vmamba_digits --check" python examples/vmamba_digits.py --check
check "mamba_text --check" python examples/mamba_text.py --check

rm -rf "$wheels"
check "pip wheel ." pip wheel -q --no-deps --wheel-dir "$wheels" .
check wheel.py python ci/checks/wheel.py "$wheels"/mambarun-*.whl
other_python 3.8 1.12.1
other_python 3.13 2.14.1

c_tests dev
finished=yes
