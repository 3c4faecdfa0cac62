#!/usr/bin/env bash
# Compiles the headers by every compiler there is, in each dialect we promise, and lets nothing pass.
# Usage: headers.sh SOURCE_DIR
source "$(dirname "$0")/lib.sh"

strict="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror -fsyntax-only"
include="-I$1/include -I$1/bindings/cpp"
tests="$1/tests/c"
wrapped="$1/tests/cpp/other_unit.cpp"
more="-Wold-style-cast -Wextra-semi -Wnon-virtual-dtor -Woverloaded-virtual"
tried=0

check() {  # COMPILER SOURCE [OPTION]...
    command -v "$1" >/dev/null || return 0
    tried=$((tried + 1))
    # shellcheck disable=SC2086
    "$1" $strict $include "${@:3}" "$2" || fail "$*"
}

for compiler in gcc clang; do
    for dialect in c11 c17 c2x; do
        check $compiler "$tests/header.c" -std=$dialect -Wstrict-prototypes
    done
done
# shellcheck disable=SC2086
for compiler in g++ clang++; do
    for dialect in c++17 c++20; do
        check $compiler "$tests/header.cpp" -std=$dialect -Wold-style-cast
        check $compiler "$wrapped" -std=$dialect $more
    done
    check $compiler "$wrapped" -std=c++17 $more -fno-exceptions
    check $compiler "$wrapped" -std=c++17 $more -fno-exceptions -fno-rtti
    command -v $compiler >/dev/null || continue
    ! $compiler -std=c++17 -fsyntax-only $include "$1/tests/cpp/mutable.cpp" 2>"$scratch/said" ||
        fail "a mutable handler compiles"
    grep -q "several loops call it at once" "$scratch/said" || fail "$(cat "$scratch/said")"
done
[ "$tried" -gt 0 ] || fail "there is no compiler called gcc, g++, clang or clang++"
