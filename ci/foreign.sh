#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# foreign.sh - the conformance suite against the original modules, compiled here:
#
#   ci/foreign.sh FOLDER mamba_ssm-2.3.1.tar.gz causal_conv1d-1.6.1.tar.gz
#
# One of them will do. The archives are the source distributions that PyPI has. They are
# unpacked and compiled in FOLDER, outside of this repository, and nothing of them enters
# it; a second run compiles only what has changed. Then the suite runs them beside
# mambarun's VARIANT (cuda12_sm90): FOLDER/report is the result, and the exit status the
# suite's: 1 where one of them does not conform, 3 where this machine lacks something.
#
# Needs a GPU, nvcc, ninja and a torch with CUDA for PYTHON (python3), 2 to 4 minutes on
# 16 CPUs; mambarun with that variant, installed or named by MAMBARUN_PATH; no network.
# TORCH_CUDA_ARCH_LIST says for what to compile (9.0).

set -eu -o pipefail
[ $# -ge 2 ] || { sed -n '4,/^$/s/^# \{0,1\}//p' "$0"; exit 2; }
refuse() { echo "$*" >&2 && exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(realpath -m "$1")
shift
case $folder/ in "$root"/*) refuse "$folder lies in this repository" ;; esac
archives=()
for archive; do
    [ -f "$archive" ] || refuse "there is no $archive"
    archives+=("$(realpath "$archive")")
done
cd "$root"
python=${PYTHON:-python3}
variant=${VARIANT:-cuda12_sm90}
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}

# All that is missing, before minutes go by.
"$python" - "$variant" <<'PYTHON' || exit 3
import sys

try:
    import torch
    from torch.utils import cpp_extension
except ImportError as missing:
    sys.exit(f"NotSupported: {sys.executable}: {missing}")
wanted = {
    "a GPU that torch can use": torch.cuda.is_available(),
    "nvcc, on PATH or below CUDA_HOME": cpp_extension.CUDA_HOME is not None,
    "ninja": cpp_extension.is_ninja_available(),
}
lacking = [what for what, there in wanted.items() if not there]
if not lacking:
    import conformance, mambarun  # the first finds the second in this tree

    verdicts = {v["name"]: v for v in mambarun.info(0)["variants"]}
    verdict = verdicts.get(sys.argv[1], {"usable": False, "reason": "no variant"})
    if not verdict["usable"]:
        lacking.append(f"mambarun's {sys.argv[1]}: {verdict['reason']}")
if lacking:
    sys.exit("NotSupported: this needs " + "; ".join(lacking))
PYTHON

# unpack ARCHIVE: prints the folder of what was in it, which is there once it is whole.
unpack() {
    local name target
    name=$(basename "$1" .tar.gz)
    target=$folder/$name
    if [ ! -d "$target" ]; then
        rm -rf "$target.part" && mkdir -p "$target.part"
        tar -xzf "$1" -C "$target.part" --strip-components 1
        # c10::optional was an alias of std::optional, and is gone since torch 2.11.
        grep -rl c10::optional "$target.part" |
            xargs -r sed -i 's/c10::optional/std::optional/g'
        mv "$target.part" "$target"
    fi
    echo "$target"
}

# compile MODULE SOURCES INTO: as the project's own setup.py would, for one architecture.
compile() {
    mkdir -p "$3"
    "$python" - "$@" <<'PYTHON'
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
}

providers=()
for archive in "${archives[@]}"; do
    sources=$(unpack "$archive")
    while read -r module csrc; do
        [ -d "$sources/$csrc" ] || continue
        echo "compiling $module of $(basename "$sources") for $TORCH_CUDA_ARCH_LIST"
        compile "$module" "$sources/$csrc" "$sources/build" >"$sources/build.log" 2>&1 ||
            { tail -n 20 "$sources/build.log" && exit 1; }
        providers+=(--provider "file:$sources/build/$module.so")
        continue 2
    done <<'LIST'
selective_scan_cuda csrc/selective_scan
causal_conv1d_cuda csrc
LIST
    refuse "$archive has neither csrc/selective_scan nor csrc: is it a source distribution?"
done
"$python" -m conformance --provider "mambarun:$variant" "${providers[@]}" \
    --device cuda --report "$folder/report"
