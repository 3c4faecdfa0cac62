#!/usr/bin/env bash
# bench.sh [ARGUMENTS OF bench/run.py]...
#
# Gets the servers to compare with, in a virtual environment of their own with toolB beside them,
# builds the native programs in build/bench/bin, and runs the comparison. The extension has been
# built before (`make bench` does all of it).
set -euo pipefail
cd "$(dirname "$0")/.."

PATH=$PATH:/usr/sbin # where Debian keeps nginx
scripts/need.sh wrk wrk "make load" nginx nginx-light "be compared with" cc gcc "build the bare C server" \
    cmake cmake "build the native programs" c++ g++ "build the native programs" \
    strace strace "count system calls"

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

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
bin=$PWD/build/bench/bin
cmake -S bench/native -B build/bench -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build build/bench >/dev/null
cargo build --quiet --locked --release -p toolb-cli
install "$CARGO_TARGET_DIR/release/toolb" "$bin"

# Its own folder and lock file. What it compares with comes from the network the first time.
round_trips() {
    CARGO_TARGET_DIR=$CARGO_TARGET_DIR/bench timeout "${BUILD_SECONDS:-900}" \
        cargo build --quiet --locked --release --manifest-path bench/bus/Cargo.toml "$@"
}
if ! round_trips; then
    echo "iceoryx2 cannot be built here (see above): round trips go without it." >&2
    round_trips --no-default-features
fi
install "$CARGO_TARGET_DIR/bench/release/toolb-bench-bus" "$bin"

exec "$venv/bin/python" bench/run.py "$@"
