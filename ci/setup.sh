# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh - what demo.sh, test.sh, full.sh, wheel.sh and carry.sh share; sourced, not
# run. Makes .venv with a torch, the packages asked for and mambarun itself, and uses
# apt only for what is really missing. Every step that takes long says so and keeps
# talking.
#
# Shell variables that a user may set:
#   PYTHON  the interpreter of .venv (python3), looked at when .venv is made
#   TORCH   a version of torch to use, such as 2.2.0, whatever is there already

set -u -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
root=$PWD
logs=$root/out/ci
cpu_index=https://download.pytorch.org/whl/cpu
mkdir -p "$logs"

export CMAKE_BUILD_PARALLEL_LEVEL
CMAKE_BUILD_PARALLEL_LEVEL=$(nproc 2>/dev/null || echo 2)

say() { printf '[%4d s] %s\n' "$SECONDS" "$*"; }

die() {
    say "$@" >&2
    exit 1
}

# quietly NAME COMMAND...: output goes to out/ci/NAME.log; while it runs, its last line
# is shown every 20 s; if it fails, its end is shown. Returns the command's status.
quietly() {
    local name=$1 log=$logs/${1//[ \/]/_}.log pid ticks=0 status=0
    shift
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 $pid 2>/dev/null; do
        sleep 0.2
        ticks=$((ticks + 1))
        if [ $((ticks % 100)) = 0 ]; then
            say "  $name: $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-100)"
        fi
    done
    wait $pid || status=$?
    if [ $status != 0 ]; then
        say "$name failed with status $status; the end of $log:"
        tail -n 40 "$log" | sed 's/^/    /'
    fi
    return $status
}

# apt_install PACKAGE...: the only place that changes the machine outside this folder.
apt_install() {
    local as=()
    command -v apt-get >/dev/null || die "missing: $*; there is no apt-get here, please install them"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null ||
            die "missing: $*; ask an administrator for: apt-get install $*"
        as=(sudo)
    fi
    say "installing with apt: $*"
    quietly apt-update "${as[@]}" apt-get update -q || say "going on with the old package lists"
    quietly apt-install "${as[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$@" || die "apt could not install $*"
}

# commit_of_tree: with -dirty if more than recorded results has changed since.
commit_of_tree() {
    local dirty=
    git diff --quiet HEAD -- . ':!docs/results' ':!conformance/results' || dirty=-dirty
    echo "$(git describe --always)$dirty"
}

can_compile() {
    echo '#include <stdio.h>' | "${CC:-cc}" -x c -fsyntax-only - 2>/dev/null
}

can_venv() { "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null; }

# need_system PACKAGE...: a compiler, a Python with venv, and these packages.
need_system() {
    local missing=("$@")
    can_compile || missing+=(gcc libc6-dev)
    can_venv || missing+=(python3 python3-venv)
    [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
    can_compile || die "no working C compiler: ${CC:-cc} cannot compile a program"
    can_venv || die "${PYTHON:-python3} cannot make virtual environments"
}

# version_of MODULE: as .venv imports it, or nothing.
version_of() {
    .venv/bin/python -c "import $1; print($1.__version__)" 2>/dev/null
}

# A torch that is there is used where it lies, through one path file in .venv.
borrow_torch() {
    local folder
    folder=$("${PYTHON:-python3}" -c 'import os, torch
print(os.path.dirname(os.path.dirname(torch.__file__)))' 2>/dev/null) || return 0
    [ -n "$folder" ] || return 0
    .venv/bin/python -c 'import pathlib, sys, sysconfig
path = pathlib.Path(sysconfig.get_paths()["purelib"], "torch_that_is_there.pth")
path.write_text(sys.argv[1] + "\n")' "$folder"
}

need_venv() {
    if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        say "making .venv with $("${PYTHON:-python3}" --version)"
        rm -rf .venv
        quietly venv "${PYTHON:-python3}" -m venv .venv || die "could not make .venv"
        [ -n "${TORCH:-}" ] || borrow_torch
    fi
}

pip_install() { # NAME PIP-ARGUMENTS...
    local name=$1
    shift
    quietly "$name" .venv/bin/python -m pip install --disable-pip-version-check "$@"
}

answers() { # URL
    .venv/bin/python - "$1" 2>/dev/null <<'PYTHON'
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=5).close()
PYTHON
}

need_torch() {
    local want=${TORCH:-2.13.0} have from=()
    have=$(version_of torch)
    if [ -n "$have" ] && { [ -z "${TORCH:-}" ] || [ "${have%%+*}" = "$TORCH" ]; }; then
        say "torch $have is here"
        return
    fi
    if answers "$cpu_index/torch/"; then
        from=(--index-url "$cpu_index")
        say "installing torch==$want, the CPU build: about 200 MB to load, 1 GB on disk"
    else
        say "installing torch==$want from pip's own index: 200 MB to load if that has a" \
            "CPU build, else up to 3 GB and 7 GB on disk"
    fi
    pip_install torch "${from[@]}" "torch==$want" || die "could not install torch==$want"
    have=$(version_of torch)
    [ -n "$have" ] || die "torch was installed but cannot be imported"
    say "torch $have is installed; .venv has $(du -sm .venv | cut -f 1) MB"
}

# numpy_for TORCH: torch before 2.3 was built for numpy 1.
numpy_for() {
    case $1 in
    1.* | 2.[0-2].*) echo "numpy<2" ;;
    *) echo numpy ;;
    esac
}

# need_python PACKAGE...: these and a numpy that suits torch.
need_python() {
    say "Python packages: numpy $*"
    pip_install packages "$(numpy_for "$(version_of torch)")" "$@" ||
        die "could not install $*"
}

# need_nvrtc: the compilers that manifest.def names, each in out/nvrtc/<major>, and the
# CMake settings that say so in $nvrtc. Fails if they cannot be had.
nvrtc=()
need_nvrtc() {
    local major version wheel folder
    nvrtc=(-DMAMBARUN_CUDA=ON "-DMAMBARUN_KERNEL_CACHE=$root/out/kernels")
    while read -r major version wheel; do
        folder=$root/out/nvrtc/$major
        nvrtc+=("-DMAMBARUN_NVRTC_$major=$folder")
        [ ! -e "$folder/complete" ] || continue
        say "$wheel $version: 50 to 90 MB to load"
        rm -rf "$folder"
        pip_install "$wheel" --no-deps --target "$folder" "$wheel==$version.*" || return 1
        touch "$folder/complete"
    done < <(sed -n 's/^MBR_TOOLKIT(\([0-9]*\), *"\([0-9.]*\)".*"\(.*\)")$/\1 \2 \3/p' \
        libmambarun/manifest.def)
}

# zig_cc TARGET FILE: writes a C compiler for TARGET, such as x86_64-linux-gnu.2.17.
zig_cc() {
    mkdir -p "$(dirname "$2")"
    printf '#!/bin/sh\nexec %s -m ziglang cc -target %s "$@"\n' \
        "$root/.venv/bin/python" "$1" >"$2"
    chmod +x "$2"
}

sources_hash() {
    find CMakeLists.txt pyproject.toml README.md libmambarun shim -type f \
        ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum
}

# need_mambarun: pip install . unless this very source is installed already.
need_mambarun() {
    local now
    now=$(sources_hash)
    if [ "$now" = "$(cat .venv/mambarun.installed 2>/dev/null)" ]; then
        say "mambarun of this source is installed"
        return
    fi
    say "pip install ."
    rm -f .venv/mambarun.installed
    pip_install mambarun --force-reinstall --no-deps . || die "pip install . failed"
    echo "$now" >.venv/mambarun.installed
}

# cpu_variants: their names, as the manifest has them.
cpu_variants() {
    sed -n 's/^MBR_CPU_VARIANT(\([a-z0-9_]*\),.*/\1/p' libmambarun/manifest.def
}
