#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# foreign.sh - the conformance suite against the original modules, compiled here:
#
#   ci/foreign.sh FOLDER mamba_ssm-2.3.1.tar.gz causal_conv1d-1.6.1.tar.gz
#
# The archives are the source distributions that PyPI has. They are unpacked and
# compiled in FOLDER, outside of this repository, and nothing of them enters it. Then the
# suite runs them beside mambarun's VARIANT (cuda12_sm90): FOLDER/report is the result.
#
# Needs a GPU, nvcc, ninja and a torch with CUDA for PYTHON (python3), 2 to 4 minutes on
# 16 CPUs; mambarun with that variant, installed or named by MAMBARUN_PATH; no network.
# TORCH_CUDA_ARCH_LIST says for what to compile (9.0).

set -eu -o pipefail
[ $# -ge 2 ] || { sed -n '4,/^$/s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
archives=()
for archive; do
    archives+=("$(cd "$(dirname "$archive")" && pwd)/$(basename "$archive")")
done
cd "$(dirname "$0")/.."
case $folder/ in "$PWD"/*) echo "$folder lies in this repository" && exit 2 ;; esac
python=${PYTHON:-python3}
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}

# compile NAME SOURCES: as the project's own setup.py would, for one architecture.
compile() {
    local build=$folder/build/$1
    [ ! -e "$folder/modules/$1.so" ] || return 0
    mkdir -p "$build" "$folder/modules"
    # c10::optional was an alias of std::optional, and is gone since torch 2.11.
    find "$2" -type f -exec sed -i 's/c10::optional/std::optional/g' {} +
    "$python" - "$1" "$2" "$build" <<'PYTHON'
import pathlib, sys
from torch.utils.cpp_extension import load

name, sources, build = sys.argv[1:]
found = sorted(pathlib.Path(sources).iterdir())
files = [str(file) for file in found if file.suffix in (".cpp", ".cu")]
undefine = [
    "-U__CUDA_NO_HALF_OPERATORS__",
    "-U__CUDA_NO_HALF_CONVERSIONS__",
    "-U__CUDA_NO_BFLOAT16_OPERATORS__",
    "-U__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-U__CUDA_NO_BFLOAT162_OPERATORS__",
    "-U__CUDA_NO_BFLOAT162_CONVERSIONS__",
]
lambdas = ["--expt-relaxed-constexpr", "--expt-extended-lambda", "--use_fast_math"]
load(
    name=name,
    sources=files,
    extra_include_paths=[sources],
    extra_cflags=["-O3"],
    extra_cuda_cflags=["-O3", *undefine, *lambdas],
    build_directory=build,
    is_python_module=False,
)
PYTHON
    cp "$build/$1.so" "$folder/modules"
}

for archive in "${archives[@]}"; do
    tar -xzf "$archive" -C "$folder"
done
providers=()
while read -r name sources; do
    [ -d "$sources" ] || continue
    echo "compiling $name for $TORCH_CUDA_ARCH_LIST"
    compile "$name" "$sources" >"$folder/$name.log" 2>&1 ||
        { tail -n 20 "$folder/$name.log" && exit 1; }
    providers+=(--provider "file:$folder/modules/$name.so")
done <<LIST
selective_scan_cuda $(echo "$folder"/mamba_ssm-*/csrc/selective_scan)
causal_conv1d_cuda $(echo "$folder"/causal_conv1d-*/csrc)
LIST
"$python" -m conformance --provider "mambarun:${VARIANT:-cuda12_sm90}" "${providers[@]}" \
    --device cuda --report "$folder/report"
