#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# consumers.sh - the C library as strangers have it: installed, found by CMake or by
# pkg-config, with no environment variable to help. Run by ctest (examples/CMakeLists.txt).
#
#     consumers.sh install|cmake|pkg-config|headers BUILD
#
# BUILD is a finished build; everything is written under BUILD/consumers. Exit status 77:
# skipped, for the reason printed.
set -euo pipefail

step=$1 build=$2
work=$build/consumers
prefix=$work/prefix
root=$(cd "$(dirname "$0")/../.." && pwd)

# cached NAME: what the build was configured with.
cached() {
    sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"
}
cmake=$(cached CMAKE_COMMAND)
cc=$(cached CMAKE_C_COMPILER)

skip() {
    echo "skipped: $1"
    exit 77
}

# Variants must be found beside the library, not through a variable of ours.
run_alone() {
    env -i "$1"
}

install() {
    rm -rf "$work"
    "$cmake" --install "$build" --prefix "$prefix"
    ! find "$prefix" -name '*reference*' -o -name '*fake*' | grep . ||
        { echo "these are for tests only and must not be installed" >&2 && exit 1; }
}

with_cmake() {
    "$cmake" -S "$root/examples/consumer" -B "$work/cmake" -G "$(cached CMAKE_GENERATOR)" \
        -DCMAKE_MAKE_PROGRAM="$(cached CMAKE_MAKE_PROGRAM)" \
        -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$prefix"
    "$cmake" --build "$work/cmake"
    run_alone "$work/cmake/scan"
}

with_pkg_config() {
    local flags libdir
    command -v pkg-config >/dev/null || skip "no pkg-config here"
    PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name mambarun.pc)")
    export PKG_CONFIG_PATH
    flags=$(pkg-config --cflags --libs mambarun)
    libdir=$(pkg-config --variable=libdir mambarun)
    # shellcheck disable=SC2086 # flags are words
    "$cc" -std=c11 -Wall -Wextra -Wpedantic -Werror "$root/examples/scan.c" \
        -o "$work/scan" $flags -lm -ldl -Wl,-rpath,"$libdir"
    run_alone "$work/scan"
}

# Each header alone, in the oldest dialects that it promises.
headers() {
    local folder header strict="-Wall -Wextra -Wpedantic -Werror -fsyntax-only"
    folder=$(dirname "$(find "$prefix" -name mambarun.h)")
    (cd "$folder" && find . -name '*.h') | while read -r header; do
        echo "#include <$header>" >"$work/header.c"
        # shellcheck disable=SC2086 # flags are words
        "$cc" -std=c99 $strict -I"$folder" "$work/header.c"
        command -v c++ >/dev/null || skip "in C they compile; no C++ compiler here"
        # shellcheck disable=SC2086
        c++ -x c++ -std=c++11 $strict -I"$folder" "$work/header.c"
        echo "$header compiles as C99 and as C++11"
    done
}

case $step in
install | headers) $step ;;
cmake) with_cmake ;;
pkg-config) with_pkg_config ;;
*) echo "no such step: $step" >&2 && exit 1 ;;
esac
