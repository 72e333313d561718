#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# carry.sh - packs what gpu.sh needs on a machine with a GPU and no network, beside this
# repository, into out/gpu:
#   wheels/     the wheel that wheel.sh made; pytest with two plugins; einops
#   lib/        the CUDA rows that are built for tests only
#   callers/    the Python half of mamba-ssm and causal-conv1d
#   commit.txt  the wheel's, and this tree's if that is another
# Torch with CUDA, triton and transformers have to be there already.

# shellcheck source=ci/setup.sh
. "$(dirname "$0")/setup.sh"

carried=$root/out/gpu
build=$root/build/carry

if pkg-config --exists cmocka 2>/dev/null; then # where tests are built, CMake wants it
    need_system
else
    need_system libcmocka-dev pkg-config
fi
need_venv
need_nvrtc || die "could not install NVRTC"
pip_install tools cmake ninja || die "could not install the build tools"
export PATH=$root/.venv/bin:$PATH
ls out/wheels/mambarun-*.whl >/dev/null || die "no wheel in out/wheels: run ci/wheel.sh"

rm -rf "$carried"
mkdir -p "$carried/wheels" "$carried/lib"
cp out/wheels/mambarun-*.whl "$carried/wheels"
of_wheel=$(cat out/wheels/commit.txt 2>/dev/null || echo "an unknown commit")
of_tree=$(commit_of_tree)
[ "$of_wheel" = "$of_tree" ] || of_tree="wheel of $of_wheel, tests and test-only rows of $of_tree"
echo "$of_tree" >"$carried/commit.txt"
say "$of_tree"

mapfile -t test_rows < <(sed -n 's/^MBR_CUDA_TEST_VARIANT(\([a-z0-9_]*\),.*/\1/p' \
    libmambarun/manifest.def)
build_rows() {
    cmake -G Ninja -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DMAMBARUN_TESTS=ON \
        "${nvrtc[@]}" "-DMAMBARUN_ONLY=$(IFS=';' && echo "${test_rows[*]}")" &&
        cmake --build "$build" --target "${test_rows[@]}"
}
quietly "test-only rows" build_rows || die "the test-only rows could not be built"
for name in "${test_rows[@]}"; do
    cp "$build/lib/libmambarun_$name.so" "$carried/lib"
done

quietly "wheels" .venv/bin/python -m pip download -q --disable-pip-version-check \
    --dest "$carried/wheels" pytest pytest-xdist pytest-timeout "einops>=0.8" ||
    die "could not load pytest and einops"
quietly "callers" ci/callers.sh --into "$carried/callers" ||
    die "could not load mamba-ssm and causal-conv1d"
say "$(du -sm "$carried" | cut -f 1) MB in $carried"
