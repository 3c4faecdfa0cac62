#!/usr/bin/env bash
# fuzz.sh [TARGET]...
#
# Runs every fuzz target, or those named, for SECONDS_EACH (60) seconds. Stops at the first crash and
# says which input caused it.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${SECONDS_EACH:-60}
scripts/need.sh c++ g++ "build libFuzzer"
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "Installing cargo-fuzz ..." >&2
    cargo install --quiet --locked cargo-fuzz
fi

# A stable toolchain does: this lets it take the sanitizers' flags.
export RUSTC_BOOTSTRAP=1
unset CARGO_TARGET_DIR # cargo-fuzz keeps its instrumented builds in fuzz/target
targets=("$@")
if ((${#targets[@]} == 0)); then
    listed=$(cargo fuzz list)
    mapfile -t targets <<<"$listed"
fi

for target in "${targets[@]}"; do
    echo "== $target, $seconds s"
    mkdir -p "fuzz/corpus/$target"
    folders=("fuzz/corpus/$target") # what it finds goes to the first
    [[ -d fuzz/seeds/$target ]] && folders+=("fuzz/seeds/$target")
    cargo fuzz run "$target" "${folders[@]}" -- -max_total_time="$seconds" -verbosity=0
done
echo "${#targets[@]} targets ran for $seconds s each without a finding."
