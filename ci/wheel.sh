#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# wheel.sh - the wheel that is given to users and carried to machines with a GPU: every
# row of manifest.def, for any Linux with glibc 2.17 on this processor family. Needs no
# toolkit and no GPU; compiled kernels are kept in out/kernels, so that the next run
# compiles only what has changed. Leaves the wheel in out/wheels and prints what each
# part weighs and how long it took.
#
# On the other machine: pip install --no-index mambarun-*.whl

# shellcheck source=ci/setup.sh
. "$(dirname "$0")/setup.sh"

build=$root/build/wheel
wheels=$root/out/wheels
glibc=2.17

need_system
need_venv
pip_install tools cmake ninja "scikit-build-core>=0.10" ziglang wheel ||
    die "could not install the build tools"
need_nvrtc || die "could not install NVRTC"
export PATH=$root/.venv/bin:$PATH
machine=$(uname -m)
zig_cc "$machine-linux-gnu.$glibc" "$build/cc"

settings=("-DCMAKE_C_COMPILER=$build/cc" "${nvrtc[@]}")
begin=$SECONDS
rm -rf "$wheels"
quietly wheel pip wheel -v --no-deps --no-build-isolation --wheel-dir "$wheels" \
    -C build-dir="$build/cmake" -C logging.level=INFO \
    "${settings[@]/#-D/-Ccmake.define.}" . || die "the wheel could not be built"
say "built in $((SECONDS - begin)) s"

lib=$build/cmake/lib
quietly "symbols.sh" bash ci/checks/symbols.sh --portable "$lib" || die "see above"
python -m wheel tags --remove --platform-tag "manylinux_${glibc/./_}_$machine" \
    "$wheels"/*.whl >/dev/null || die "could not name the wheel's platform"
faults=()
python ci/checks/cubins.py "$build/cmake" >"$logs/cubins.txt" || faults+=(cubins.py)
sed '/^$/,$d' "$logs/cubins.txt"
grep '^[a-z0-9_]*: ' "$logs/cubins.txt"
say "registers and spills of every kernel: $logs/cubins.txt"
python ci/checks/wheel.py "$wheels"/*.whl --cuda || faults+=(wheel.py)
say "$(ls "$wheels"/*.whl), $(stat -c %s "$wheels"/*.whl) bytes"
[ ${#faults[@]} = 0 ] || die "the wheel is there, but not in order: ${faults[*]}"
