#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# wheel.sh - the wheel that is given to users and carried to machines with a GPU: every
# row of manifest.def, for any Linux with glibc 2.17 on this processor family. Needs no
# toolkit and no GPU; compiled kernels are kept in out/kernels, so that the next run
# compiles only what has changed. Leaves the wheel and its commit in out/wheels, and what
# each part weighs and how long it took in docs/results/gpu/build.txt.
#
#   ci/wheel.sh [ROW...]
#
# ROW: only the rows that match one of these globs, such as cpu_avx2 'cuda12_*': a wheel
# to try something with, not to give away.
#
# On the other machine: pip install --no-index mambarun-*.whl

# shellcheck source=ci/setup.sh
. "$(dirname "$0")/setup.sh"

build=$root/build/wheel
wheels=$root/out/wheels
commit=$(commit_of_tree)
glibc=2.17

need_system
need_venv
pip_install tools cmake ninja "scikit-build-core>=0.10" ziglang wheel ||
    die "could not install the build tools"
need_nvrtc || die "could not install NVRTC"
export PATH=$root/.venv/bin:$PATH
machine=$(uname -m)
zig_cc "$machine-linux-gnu.$glibc" "$build/cc"

only=$(IFS=';' && echo "${*:-*}")
settings=("-DCMAKE_C_COMPILER=$build/cc" "-DMAMBARUN_ONLY=$only" "${nvrtc[@]}")
had=$(find out/kernels -name '*.image' 2>/dev/null | wc -l)
begin=$SECONDS
rm -rf "$wheels" "$build/cmake/lib" # rows of an earlier run are not of this one
quietly wheel pip wheel -v --no-deps --no-build-isolation --wheel-dir "$wheels" \
    -C build-dir="$build/cmake" -C logging.level=INFO \
    "${settings[@]/#-D/-Ccmake.define.}" . || die "the wheel could not be built"
new=$(($(find out/kernels -name '*.image' | wc -l) - had))
took="built in $((SECONDS - begin)) s on $CMAKE_BUILD_PARALLEL_LEVEL CPUs, $new kernels compiled, the others kept from before"
say "$took"

lib=$build/cmake/lib
quietly "symbols.sh" bash ci/checks/symbols.sh --portable "$lib" || die "see above"
python -m wheel tags --remove --platform-tag "manylinux_${glibc/./_}_$machine" \
    "$wheels"/*.whl >/dev/null || die "could not name the wheel's platform"
echo "$commit" >"$wheels/commit.txt"
faults=()
python ci/checks/cubins.py "$build/cmake" >"$logs/cubins.txt" || faults+=(cubins.py)
sed '/^$/,$d' "$logs/cubins.txt"
grep '^[a-z0-9_]*: ' "$logs/cubins.txt"
say "registers and spills of every kernel: $logs/cubins.txt"
if [ "$only" = '*' ]; then
    python ci/checks/wheel.py "$wheels"/*.whl --cuda | tee "$logs/wheel.txt" ||
        faults+=(wheel.py)
    {
        echo "commit   $commit"
        echo "machine  $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(uname -sr)"
        echo "date     $(date -u +%Y-%m-%d)"
        echo "wheel    $took"
        echo
        cat "$logs/wheel.txt"
        echo
        cat "$logs/cubins.txt"
    } >docs/results/gpu/build.txt
fi
say "$(ls "$wheels"/*.whl), $(stat -c %s "$wheels"/*.whl) bytes"
[ ${#faults[@]} = 0 ] || die "the wheel is there, but not in order: ${faults[*]}"
