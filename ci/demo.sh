#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh - the main job, from a fresh machine to a trained network: sets up .venv,
# installs mambarun into it and trains a small VMamba on scikit-learn's digits.
#
#   ci/demo.sh                    with the torch that is there, else torch 2.13.0
#   TORCH=2.2.0 ci/demo.sh        with another torch
#   ci/demo.sh --epochs 2         arguments go to examples/vmamba_digits.py

# shellcheck source=ci/setup.sh
. "$(dirname "$0")/setup.sh"

need_system
need_venv
need_torch
need_python scikit-learn matplotlib
need_mambarun
say "python examples/vmamba_digits.py $*"
.venv/bin/python examples/vmamba_digits.py "$@" || die "the example failed"
say "done"
