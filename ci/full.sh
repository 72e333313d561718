#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# full.sh - what takes longer than test.sh: speed against its targets, valgrind, builds
# for other systems, the examples up to their marks. Results that are worth keeping are
# written to docs/results/, with the machine and the commit, to be committed.

# shellcheck source=ci/setup.sh
. "$(dirname "$0")/setup.sh"

results=docs/results
lib=build/test/lib
failed=()

# part NAME COMMAND...
part() {
    local name=$1 begin=$SECONDS
    shift
    say "$name"
    if quietly "$name" "$@"; then
        say "ok $name ($((SECONDS - begin)) s)"
    else
        failed+=("$name")
    fi
}

# keep NAME FILE...: the end of a part's log, as text beside the machine it came from.
keep() {
    local name=$1 file=$results/$2
    {
        echo "commit   $(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ' with changes')"
        echo "machine  $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs, $(uname -sr)"
        echo "software $(cc --version | head -n 1); $(python --version); torch $(version_of torch)"
        echo "date     $(date -u +%Y-%m-%d)"
        echo
        tr '\r' '\n' <"$logs/${name//[ \/]/_}.log" | tail -n "${3:-100}"
    } >"$file"
    say "  kept in $file"
}

# cross NAME TARGET OPTIONS...: builds the release with zig's C compiler for TARGET.
cross() {
    local folder=build/$1 target=$2
    shift 2
    zig_cc "$target" "$folder/cc"
    cmake -G Ninja -S . -B "$folder" -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_C_COMPILER="$root/$folder/cc" "$@" && cmake --build "$folder"
}

# sdist: what a package index would hold builds and installs by itself.
sdist() {
    rm -rf out/sdist && python -m build --sdist --outdir out/sdist . &&
        pip wheel --no-deps --wheel-dir out/sdist out/sdist/*.tar.gz &&
        python ci/checks/wheel.py out/sdist/*.whl
}

under_valgrind() {
    local program status=0
    for program in build/test/libmambarun/*_test; do
        valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite \
            --errors-for-leak-kinds=definite "$program" || {
            echo "$program: status $?"
            status=1
        }
    done
    return $status
}

if command -v valgrind >/dev/null && pkg-config --exists cmocka; then
    need_system
else
    need_system valgrind libcmocka-dev pkg-config
fi
need_venv
need_torch
need_python scikit-learn matplotlib pytest cmake ninja ziglang pre-commit build
export PATH=$root/.venv/bin:$PATH
mkdir -p "$results"
need_mambarun

build_tests() { cmake --preset test && cmake --build --preset test; }
part "build test" build_tests

for script in bench/*.py; do
    name=$(basename "$script" .py)
    case $name in harness | gpu) continue ;; esac # shared; see ci/gpu.sh
    targets=$(python "$script" --help | grep -o -m 1 -e --check)
    # shellcheck disable=SC2086 # an option or nothing
    part "bench $name" env MAMBARUN_PATH="$lib" python "$script" $targets
    keep "bench $name" "bench_$name.txt"
done
part vmamba_digits python examples/vmamba_digits.py
keep vmamba_digits vmamba_digits.txt 40
part mamba_text python examples/mamba_text.py
keep mamba_text mamba_text.txt 60

variants=()
while read -r variant; do
    variants+=(--provider "mambarun:$variant")
done < <(cpu_variants)
part conformance env MAMBARUN_PATH="$lib" python -m conformance "${variants[@]}" \
    --seed 1 --report "$logs/conformance"
mkdir -p "$results/conformance"
cp "$logs"/conformance/*.{html,md} "$results/conformance"

part mutations python conformance/mutate.py --table "$results/mutations.md"
part valgrind under_valgrind
part sdist sdist
part "portable build" cross portable x86_64-linux-gnu.2.17
part "symbols of the portable build" bash ci/checks/symbols.sh --portable build/portable/lib
part "aarch64 build" cross aarch64 aarch64-linux-gnu.2.17 \
    -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64
part style pre-commit run --all-files

if [ ${#failed[@]} != 0 ]; then
    say "FAILED: ${failed[*]}"
    exit 1
fi
say "everything passed"
