#!/usr/bin/env bash
# Builds the projects beside this file as a stranger would, and asks what they serve. Usage:
#
#   run.sh installed SOURCE_DIR BUILD_DIR                       against what BUILD_DIR installs
#   run.sh add_subdirectory GENERATOR SOURCE_DIR BUILD_DIR      with the sources in SOURCE_DIR
source "$(dirname "$0")/../c/lib.sh"

hello() {  # PROGRAM [VARIABLE=VALUE]...
    local program=$1
    shift
    serve env "$@" "$program" 0
    expect "$program" "Hello, World!" "$(ask "$url/")"
    kill -KILL "$server"
    wait "$server" 2>/dev/null || true
    server=""
}

build() {  # FOLDER [OPTION OF CMAKE]...
    local name=$1
    shift
    cmake -S "$scratch/cmake/$name" -B "$scratch/build-$name" "$@" >"$scratch/log" 2>&1 &&
        cmake --build "$scratch/build-$name" >>"$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
}

installed() {  # SOURCE_DIR BUILD_DIR
    cmake --install "$2" --prefix "$scratch/first" >/dev/null
    # Nothing that is installed knows where it was installed to.
    mv "$scratch/first" "$scratch/prefix"

    build find_package_c -DCMAKE_PREFIX_PATH="$scratch/prefix"
    hello "$scratch/build-find_package_c/hello"
    hello "$scratch/build-find_package_c/hello_static"
    needed "$scratch/build-find_package_c/hello" | grep -qx libtoolb.so.0 ||
        fail "the program does not ask for libtoolb.so.0"
    ! needed "$scratch/build-find_package_c/hello_static" | grep libtoolb ||
        fail "the static program asks for the shared library"
    build find_package_cpp -DCMAKE_PREFIX_PATH="$scratch/prefix"
    hello "$scratch/build-find_package_cpp/hello"
    hello "$scratch/build-find_package_cpp/hello_static"
    refused find_package_c 0.2
    refused find_package_c 1.0

    PKG_CONFIG_PATH=$(dirname "$(find "$scratch/prefix" -name toolb.pc)")
    export PKG_CONFIG_PATH
    make --silent -C "$scratch/cmake/pkg_config" >"$scratch/log" 2>&1 || fail "$(cat "$scratch/log")"
    hello "$scratch/cmake/pkg_config/hello" \
        LD_LIBRARY_PATH="$(pkg-config --variable=libdir toolb)"
    hello "$scratch/cmake/pkg_config/hello_static"
}

# A version that the package does not promise is not found.
refused() {  # FOLDER VERSION
    sed -i "s/find_package(toolb [0-9.]*/find_package(toolb $2/" "$scratch/cmake/$1/CMakeLists.txt"
    ! cmake -S "$scratch/cmake/$1" -B "$scratch/build-refused" \
        -DCMAKE_PREFIX_PATH="$scratch/prefix" >"$scratch/log" 2>&1 ||
        fail "version $2 was found"
    grep -q "requested version \"$2\"" "$scratch/log" || fail "$(cat "$scratch/log")"
}

add_subdirectory() {  # GENERATOR SOURCE_DIR BUILD_DIR
    local build="$scratch/build-add_subdirectory"
    build add_subdirectory -G "$1" -DTOOLB_SOURCE="$2" -DTOOLB_CARGO_PROFILE=dev
    hello "$build/hello"
    hello "$build/hello_cpp"

    # A second build does nothing; a library that changed is linked anew; one that is lost is back.
    touch "$scratch/mark"
    cmake --build "$build" >/dev/null
    [ "$build/hello" -ot "$scratch/mark" ] || fail "nothing changed, but the program was linked"
    touch "$build"/toolb/lib/libtoolb.so.*.*.*
    cmake --build "$build" >/dev/null
    [ "$build/hello" -nt "$scratch/mark" ] || fail "the library changed, but the program did not"
    rm -r "$build/toolb/lib"
    cmake --build "$build" >/dev/null
    hello "$build/hello"

    # Nothing of ours gets into the install of a project that only uses it.
    cmake --install "$build" --prefix "$scratch/theirs" >/dev/null
    [ -z "$(find "$scratch/theirs" -type f 2>/dev/null)" ] || fail "the project installs our files"
}

needed() {  # PROGRAM
    LC_ALL=C readelf --dynamic "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'
}

cp -r "$(dirname "$0")" "$scratch/cmake"
"$@"
