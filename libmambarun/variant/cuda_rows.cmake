# SPDX-License-Identifier: Apache-2.0
# cuda_rows.cmake - the CUDA rows of manifest.def, and what kernels.py needs for them.
# Included where CUDA variants are built (MAMBARUN_CUDA). Names no op and no variant.

find_package(Python3 3.8 REQUIRED COMPONENTS Interpreter)
set(MAMBARUN_KERNEL_CACHE ${CMAKE_BINARY_DIR}/kernels/cache CACHE PATH
    "Where compiled kernels are kept under a hash of all that decides about them")
# One row at a time: kernels.py itself fills the processor.
set_property(GLOBAL APPEND PROPERTY JOB_POOLS mbr_kernels=1)

# mbr_nvrtc(major out): the compiler of a toolkit, given as MAMBARUN_NVRTC_<major> (the
# library, or a folder above it such as site-packages) or installed for this Python.
function(mbr_nvrtc major out)
  set(MAMBARUN_NVRTC_${major} "" CACHE PATH "libnvrtc.so.* of CUDA ${major}, or above it")
  set(given "")
  if(MAMBARUN_NVRTC_${major})
    set(given --nvrtc ${MAMBARUN_NVRTC_${major}})
  endif()
  execute_process(
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/variant/kernels.py
            --find ${major} ${given}
    OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE)
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

# mbr_cuda_variant(name toolkit kind arch): one library of kernels.
function(mbr_cuda_variant name toolkit kind arch)
  mbr_nvrtc(${toolkit} nvrtc)
  if(NOT nvrtc)
    foreach(row IN LISTS toolkit_rows)
      if(row MATCHES "^${toolkit}[|]\"([^|]*)\"[|].*[|]\"([^|]*)\"$")
        set(wheel "${CMAKE_MATCH_2}==${CMAKE_MATCH_1}.*")
      endif()
    endforeach()
    message(FATAL_ERROR "${name} needs NVRTC of CUDA ${toolkit}: pip install '${wheel}' "
      "for ${Python3_EXECUTABLE}, or set MAMBARUN_NVRTC_${toolkit} to where it lies, or "
      "leave the row out by MAMBARUN_ONLY")
  endif()
  set(folder ${CMAKE_BINARY_DIR}/kernels/${name})
  add_custom_command(
    OUTPUT ${folder}/kernels.c
    BYPRODUCTS ${folder}/kernels.bin ${folder}/kernels.txt ${folder}/kernels.json
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/variant/kernels.py
            --kind ${kind} --arch ${arch} --nvrtc ${nvrtc}
            --out ${folder} --cache ${MAMBARUN_KERNEL_CACHE}
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/variant/kernels.py ${instances}
    DEPFILE ${folder}/kernels.d
    JOB_POOL mbr_kernels
    COMMENT "Compiling the kernels of ${name}" VERBATIM)
  set_source_files_properties(${folder}/kernels.c PROPERTIES
    OBJECT_DEPENDS ${folder}/kernels.bin)
  mbr_variant(${name} -O2 ${cuda_sources} ${folder}/kernels.c)
  target_compile_definitions(${name} PRIVATE MBR_CUDA)
endfunction()

mbr_rows(MBR_TOOLKIT ${CMAKE_CURRENT_SOURCE_DIR}/manifest.def toolkit_rows)
mbr_rows(MBR_CUDA_VARIANT ${CMAKE_CURRENT_SOURCE_DIR}/manifest.def rows)
mbr_rows(MBR_CUDA_TEST_VARIANT ${CMAKE_CURRENT_SOURCE_DIR}/manifest.def test_rows)
if(MAMBARUN_TESTS)
  list(APPEND rows ${test_rows})
endif()
foreach(row IN LISTS rows)
  string(REPLACE "|" ";" columns "${row}")
  list(GET columns 0 name)
  list(GET columns 1 toolkit)
  list(GET columns 2 kind)
  list(GET columns 3 arch)
  if(NOT name MATCHES "^(${only})$")
    continue()
  endif()
  mbr_cuda_variant(${name} ${toolkit} ${kind} ${arch})
  if(NOT row IN_LIST test_rows)
    list(APPEND installed ${name})
  endif()
endforeach()
