#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# callers.sh - a Python that also has mamba-ssm and causal-conv1d, without their kernels:
#   ci/callers.sh -m pytest conformance/test_upstream.py conformance/test_transformers.py
# runs that in .venvs/callers, which it makes on top of .venv at the first time (triton
# is 200 MB to load). With PYTHON set, the packages are installed into that instead.
#   ci/callers.sh --into FOLDER
# puts the Python half of the two there, and nothing else, for a machine that has the rest.

set -eu -o pipefail
cd "$(dirname "$0")/.."
packages="mamba-ssm==2.3.1 causal-conv1d==1.6.1"
# What the two import, and what their setup scripts need to be run without a network.
setup="packaging setuptools wheel"
needs="einops>=0.8 triton transformers>=5.5,<6 $setup"

say() { echo "callers.sh: $*" >&2; }

# On top of .venv: its packages, and the start-up files among them, are seen here too.
make_venv() {
    rm -rf .venvs/callers
    .venv/bin/python -m venv .venvs/callers
    .venvs/callers/bin/python - "$PWD/.venv" <<'PYTHON'
import pathlib, sys, sysconfig
mine = pathlib.Path(sysconfig.get_paths()["purelib"])
below = pathlib.Path(sys.argv[1]) / mine.relative_to(sys.prefix)
(mine / "below.pth").write_text(f"import site; site.addsitedir({str(below)!r})\n")
PYTHON
}

pip_install() { "$python" -m pip install -q --disable-pip-version-check "$@" >&2; }

# install_callers PIP-ARGUMENTS...: SKIP leaves the kernels out, FORCE keeps the build
# from loading compiled ones.
install_callers() {
    say "installing $packages, the Python half"
    # shellcheck disable=SC2086 # words
    MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE \
        CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE \
        pip_install --no-build-isolation --no-deps "$@" $packages
}

if [ "${1:-}" = --into ]; then
    python=.venv/bin/python
    # shellcheck disable=SC2086 # words
    pip_install $setup
    install_callers --upgrade --target "$2"
    exit
fi

python=${PYTHON:-.venvs/callers/bin/python}
if [ -z "${PYTHON:-}" ] && ! "$python" -c 'import torch' 2>/dev/null; then
    say "making .venvs/callers"
    make_venv
fi

found=$("$python" -m pip freeze 2>/dev/null | grep -Eic '^(mamba-ssm==2\.3\.1|causal-conv1d==1\.6\.1)' || true)
if [ "$found" != 2 ]; then
    say "installing what $packages import: triton, transformers, einops"
    # shellcheck disable=SC2086 # words
    pip_install $needs
    install_callers
fi
exec "$python" "$@"
