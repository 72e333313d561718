# SPDX-License-Identifier: Apache-2.0
"""_explain.py - what the codes mean that error messages and warnings name. Data only.
A code is never used again for something else.
"""

EXPLANATIONS = {
    "MR001": """\
mambarun's own files are not in order.

libmambarun.so is missing, cannot be opened, or lies beside variants (libmambarun_*.so)
that were built with another version of it. This happens after a partial upgrade, when
a copy left files out, or when MAMBARUN_PATH names a folder of another build.

What to do
  - Look at MAMBARUN_PATH: unset it, unless you run from a source tree; there it has to
    name the build's `lib` folder, with libmambarun.so and the variants in it.
  - Otherwise reinstall: pip install --force-reinstall --no-deps mambarun""",
    "MR102": """\
There is no usable NVIDIA driver library.

CUDA tensors need libcuda.so.1, which comes with the driver (not with a toolkit, and not
with torch). It was not found, or it is too old to have a function that is needed.

What to do
  - `nvidia-smi` shows whether a driver is installed, and its version.
  - In a container: start it with --gpus all and
    NVIDIA_DRIVER_CAPABILITIES=compute,utility.
  - A CUDA toolkit is not needed. Tensors on the CPU need no driver.""",
    "MR105": """\
The libcuda.so.1 that was found is the toolkit's stub.

Stubs exist for linking only; they cannot run anything. Usually LD_LIBRARY_PATH names a
folder whose path contains `stubs`.

What to do
  - Remove that folder from LD_LIBRARY_PATH.""",
    "MR106": """\
The driver library and the kernel's driver do not fit together.

Either the driver was updated and the old kernel module still runs, or the libcuda.so.1
of a `compat` package comes before the driver's own.

What to do
  - Reboot after a driver update.
  - Remove /usr/local/cuda*/compat from LD_LIBRARY_PATH, or update the driver.""",
    "MR107": """\
The GPUs of this machine are not ready: NVIDIA's fabric manager does not run.

Machines with NVSwitch (HGX, DGX) need it.

What to do
  - systemctl start nvidia-fabricmanager, in the same version as the driver.""",
    "MR109": """\
The driver does not show that GPU to this process.

What to do
  - Look at CUDA_VISIBLE_DEVICES: an empty value or -1 hides all GPUs, a wrong number
    hides those after it.
  - In a container: NVIDIA_VISIBLE_DEVICES, and --gpus.""",
    "MR112": """\
The CUDA driver refused to start, with the code and text that the message shows.

What to do
  - See whether `nvidia-smi` and a small torch program work on that GPU; if they do not,
    the reason lies with the driver. A GPU that fell off the bus wants a reboot.""",
    "MR120": """\
No variant of mambarun can run this call on this device.

A variant is one prebuilt library: cpu_avx2 for CPUs with AVX2, cuda12_sm80 for GPUs of
compute capability 8.x, and so on. The message lists every one with its reason:
  not installed            its file does not lie beside libmambarun.so
  needs AVX2, ...          this processor, or the operating system, lacks it
  needs sm_90, ...         it was built for another GPU
  needs driver API ...     the NVIDIA driver is too old for it
  not asked for            MAMBARUN_VARIANT names another

Tensors on a GPU are never run on the CPU instead. This release has CPU variants only:
on a GPU's tensors every variant says `not installed`.

What to do
  - Move the tensors and the model to the CPU, or use a release with CUDA variants.
  - See what would run here: python -m mambarun""",
    "MR302": """\
Another compiled module of that name is installed and does not load.

mambarun supplies the name instead. The usual reasons:
  undefined symbol ...           it was compiled for another version of torch
  libcudart.so.11.0: cannot open it was compiled for another version of CUDA
  libc10.so: cannot open         torch was not imported before it
  GLIBC_2.32 not found           it was compiled on a newer system
  invalid ELF header, wrong ...  it is for another processor, or cut off

What to do
  - Nothing: calls go to mambarun.
  - To be rid of the warning, uninstall the package that left the file, or delete the
    file; the warning names it. MAMBARUN_PREFER=ours does not even look for it.""",
    "MR304": """\
MAMBARUN_VARIANT asks for a variant that cannot be used.

It names exactly one variant, for all devices of its kind, and there is no fallback. The
message lists the names that exist, or says why this one does not run here.

What to do
  - Correct the name, or unset MAMBARUN_VARIANT to have the best one chosen.""",
}
