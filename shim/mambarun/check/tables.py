# SPDX-License-Identifier: Apache-2.0
"""tables.py - what the checks know of the world and what will be out of date one day.
Data only, each with its source; looked through on the date below.
"""

from __future__ import annotations

DATE = "2026-11-25"

# CUDA major -> the least NVIDIA driver (Linux) that runs what it built.
# https://docs.nvidia.com/deploy/cuda-compatibility/ , minor version compatibility
LEAST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}

# The index of torch's wheels that a driver runs: from this driver API on.
TORCH_INDEX = {12000: "cu126", 0: "cu118"}

# Driver branch -> the driver API it has: 12020 is 12.2. NVIDIA's release notes.
BRANCH_API = {
    450: 11000, 455: 11010, 460: 11020, 465: 11030, 470: 11040, 495: 11050,
    510: 11060, 515: 11070, 520: 11080, 525: 12000, 530: 12010, 535: 12020,
    545: 12030, 550: 12040, 555: 12050, 560: 12060, 565: 12070, 570: 12080,
    575: 12090, 580: 13000, 590: 13010,
}  # fmt: skip

# glibc: what the wheel is built for, and the least Python that the package runs on.
LEAST_GLIBC = (2, 17)
LEAST_PYTHON = (3, 8)

# The oldest torch that mambarun is tried with.
LEAST_TORCH = (1, 12)

# MR205: torch's wheels, by torch version and CUDA: (from torch, CUDA major and minor
# from, the least capability that their kernels run on, the largest). A capability in
# between runs; the first row that fits counts. pytorch/pytorch#172352, #190385 and the
# build scripts of each release (.ci/manywheel/build_cuda.sh).
TORCH_CAPABILITIES = (
    # torch,  CUDA,     least, largest
    ((2, 8), (13, 0), 75, 129),
    ((2, 8), (12, 8), 70, 129),
    ((2, 7), (12, 8), 75, 129),
    ((2, 0), (12, 0), 50, 99),
    ((1, 13), (11, 8), 37, 99),
    ((1, 12), (11, 0), 37, 89),
)

# Which folder of site-packages the CUDA runtime and cuDNN of torch's own wheels lie in
# is core/locate.c's business; this is the cuDNN that each torch was built with.
# torch's version.py says its CUDA, not its cuDNN: requirements of the wheels.
TORCH_CUDNN = (
    # from torch, cuDNN major
    ((2, 4), 9),
    ((1, 12), 8),
)

# MR402: mamba_ssm from here on imports causal_conv1d.cpp_functions, which
# causal_conv1d has from here on, and which needs torch.library.custom_op.
MAMBA_WANTS_CPP_FUNCTIONS = (2, 2, 5)
CONV_HAS_CPP_FUNCTIONS = (1, 5, 1)
CUSTOM_OP_SINCE_TORCH = (2, 4)

# MR404: transformers took GreedySearchDecoderOnlyOutput away in 5.0, mamba_ssm imports
# it up to 2.2.6.post3.
TRANSFORMERS_WITHOUT_GREEDY = (5, 0)
MAMBA_WITHOUT_GREEDY = (2, 3, 0)

# MR405: mamba_ssm from here on imports Mamba-3, which needs these packages; the ffi of
# this version or newer breaks that tilelang. state-spaces/mamba#907, #986, #995.
MAMBA_WITH_MAMBA3 = (2, 3, 2)
MAMBA3_NEEDS = ("tilelang", "apache-tvm-ffi", "quack-kernels")
FFI_BREAKS = ((0, 1, 10), (0, 1, 8))  # apache-tvm-ffi from, tilelang up to

# MR406: torch before this was built for NumPy 1.
TORCH_FOR_NUMPY_2 = (2, 3)

# MR401: the pair of pure-Python packages that goes with a torch: (from torch,
# mamba-ssm, causal-conv1d).
PURE_PAIRS = (
    ((2, 4), "2.3.1", "1.6.1"),
    ((0,), "2.2.4", "1.5.0.post8"),
)

# MR403: a word in mamba_ssm/modules/mamba_simple.py -> whose fork it is. The first one
# that occurs counts.
FORKS = (
    ("bimamba_type", "Vim (hustvl/Vim, mamba-1p1p1)"),
    ("nslices", "SegMamba (ge-xing/SegMamba)"),
    ("scan_type", "ZigMa (CompVis/zigma)"),
    ("bimamba", "VideoMamba (OpenGVLab/VideoMamba)"),
)


def row(table: tuple[tuple[object, ...], ...], version: tuple[int, ...]) -> object:
    """The first row whose first item is not newer than the version."""
    return next((r for r in table if r[0] <= version), None)  # type: ignore[operator]
