#!/usr/bin/env bash
# bench.sh [ARGUMENTS OF bench/run.py]...
#
# Gets the servers to compare with, in a virtual environment of their own with toolB beside them,
# and runs the comparison. `make build` has been done before.
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/sbin # where Debian keeps nginx
scripts/need.sh wrk wrk "make load" nginx nginx-light "be compared with" cc gcc "build the bare C server" \
    cmake cmake "build the C example" c++ g++ "build the C example"

venv=$PWD/build/bench-venv
if [[ ! -e "$venv/installed.ok" || bench/requirements.txt -nt "$venv/installed.ok" ]]; then
    scripts/venv.sh "$venv" bench/requirements.txt
    touch "$venv/installed.ok"
fi
if [[ ! -x "$venv/bin/toolb" || .venv/bin/toolb -nt "$venv/bin/toolb" ]]; then
    VIRTUAL_ENV=$venv .venv/bin/maturin develop --quiet --release --locked \
        --manifest-path bindings/python/Cargo.toml
    touch "$venv/bin/toolb"
fi

cmake -S . -B build/cmake -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
cmake --build build/cmake --target router >/dev/null

scripts/need.sh cmake cmake "build the C example to compare"
cmake -S . -B build/cmake -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
cmake --build build/cmake --target router >/dev/null

exec "$venv/bin/python" bench/run.py "$@"
