# SPDX-License-Identifier: Apache-2.0
# cpu_flags.cmake - instruction set -> compiler flags. A set that this processor family
# does not know has no entry, and its rows of manifest.def are not built.
set(MBR_CPU_FLAGS_SCALAR -O3 -ffp-contract=fast)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
  set(MBR_CPU_FLAGS_AVX2 -O3 -ffp-contract=fast -mavx2 -mfma -mf16c)
  set(MBR_CPU_FLAGS_AVX512
      -O3 -ffp-contract=fast -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mf16c
      -mprefer-vector-width=512)
endif()
