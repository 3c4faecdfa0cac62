#!/usr/bin/env bash
# Installs the package into a folder of its own, builds a project outside the tree against it, and
# asks what that serves. Usage: external.sh SOURCE_DIR BUILD_DIR
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$2" --prefix "$work/prefix" >/dev/null
cp -r "$1/tests/c/external" "$work/project"
cp "$1/examples/c/router/main.c" "$work/project/"
cmake -S "$work/project" -B "$work/build" -DROUTER_SOURCE=main.c \
    -DCMAKE_PREFIX_PATH="$work/prefix" >/dev/null
cmake --build "$work/build" >/dev/null
"$1/tests/c/router.sh" "$work/build/router"

# The same by pkg-config's file, without CMake.
libdir=$(dirname "$(find "$work/prefix" -name toolb.pc)")/..
cc -std=c11 -I"$work/prefix/include" "$work/project/main.c" -o "$work/plain" \
    -L"$libdir" -ltoolb -Wl,-rpath,"$libdir"
"$1/tests/c/router.sh" "$work/plain"
