#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# symbols.sh FOLDER [--portable] - what the libraries built there export and need: the
# core exports the functions of abi.txt, a variant its entry, neither anything else, and
# none needs more than libc's own libraries. With --portable nothing is newer than
# GLIBC_2.17.

set -eu
export LC_ALL=C
root=$(cd "$(dirname "$0")/../.." && pwd)

folder='' portable=''
for argument in "$@"; do
    case $argument in
    --portable) portable=yes ;;
    *) folder=$argument ;;
    esac
done
if [ ! -f "$folder/libmambarun.so" ]; then
    echo "usage: symbols.sh FOLDER [--portable]: no libmambarun.so in '$folder'"
    exit 2
fi

wrong=0
complain() {
    echo "$*"
    wrong=1
}

exports() {
    nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort
}

# check_exports LIBRARY EXPECTED: the two lists, one name a line.
check_exports() {
    local name
    while read -r name; do
        complain "$1: $name"
    done < <(comm -3 <(exports "$1") <(printf '%s\n' "$2") |
        sed -e 's/^\t\(.*\)/does not export \1/' -e '/^does not/!s/^/exports /')
}

# glibc's parts and the vDSO's; libasan and libubsan in the sanitizers' own preset.
check_needs() {
    local name
    while read -r name; do
        case $name in
        libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | ld-linux*) ;;
        libgcc_s.so.1 | libasan.so.* | libubsan.so.*)
            [ -z "$portable" ] || complain "$1: needs $name" ;;
        *) complain "$1: needs $name" ;;
        esac
    done < <(readelf -dW "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
}

check_glibc() {
    local newest
    newest=$(readelf -VW "$1" | grep -o 'GLIBC_2\.[0-9.]*' | sort -uV | tail -n 1)
    if [ "$(printf '%s\n' GLIBC_2.17 "$newest" | sort -V | tail -n 1)" != GLIBC_2.17 ]; then
        complain "$1: needs $newest, the oldest glibc we promise is 2.17:" \
            "$(nm -D "$1" | grep -o "[^ ]*@$newest" | tr '\n' ' ')"
    fi
}

count=0
for library in "$folder"/libmambarun*.so; do
    count=$((count + 1))
    case $library in
    */libmambarun.so)
        check_exports "$library" \
            "$(sed -n 's/^function \([a-z0-9_]*\):.*/\1/p' "$root/libmambarun/abi.txt" | sort)"
        ;;
    *) check_exports "$library" mbr_variant_entry ;;
    esac
    check_needs "$library"
    [ -z "$portable" ] || check_glibc "$library"
done
[ $wrong = 0 ] || exit 1
echo "OK: $count libraries in $folder export what they should${portable:+, need no glibc newer than 2.17}"
