#!/usr/bin/env bash
# Runs the loom models of the bus (core/src/bus/models.rs) against the source that ships, then again
# with one line of that source taken out at a time: each of these mutants must make its model fail, by
# the message given here. One line each; the exit status is that of the worst.
#
#   core/tests/loom.sh              all of it
#   LOOM_MAX_PREEMPTIONS=4 ...      deeper than the 3 preemptions it does by itself
set -euo pipefail
cd "$(dirname "$0")/../.."

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/loom
export CARGO_PROFILE_DEV_OPT_LEVEL=2
export RUSTFLAGS="--cfg loom"
export LOOM_MAX_PREEMPTIONS=${LOOM_MAX_PREEMPTIONS:-3}
export RUST_BACKTRACE=0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0

# build [rustc flags...]: compiles the unit tests and prints the program's path.
build() {
    cargo rustc -q -p toolb-core --lib --profile test --message-format=json -- "$@" 2>"$log" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# say RESULT WHAT
say() {
    printf '%-6s %s\n' "$1" "$2"
    if [ "$1" = FAILED ]; then
        failed=1
        cat "$log"
    fi
}

# models: the shipped source must pass them all.
models() {
    local program
    program=$(build)
    if "$program" bus::models >"$log" 2>&1 && grep -q '^test result: ok. [1-9]' "$log"; then
        say ok "$(grep -c '^test .* ok$' "$log") models, $LOOM_MAX_PREEMPTIONS preemptions"
    else
        say FAILED "models"
    fi
}

# mutant NAME MODEL MESSAGE: the model must fail with the message.
mutant() {
    local program
    program=$(build --cfg "mutant=\"$1\"")
    if "$program" --exact "bus::models::$2" >"$log" 2>&1; then
        say FAILED "$1: $2 did not notice"
    elif grep -q -e "$3" "$log"; then
        say ok "$1: $2 fails with \"$3\""
    else
        say FAILED "$1: $2 failed otherwise than with \"$3\""
    fi
}

models
mutant no_producer_fence wake_reaches_the_sleeper "deadlock; threads"
mutant no_sleeper_fence wake_reaches_the_sleeper "deadlock; threads"
mutant no_recheck wake_reaches_the_sleeper "deadlock; threads"
mutant no_space_fence space_wanted_is_seen "deadlock; threads"
mutant no_start_fence start_excludes_recall "a recalled exchange ran"
mutant no_start_release start_excludes_recall "a start without its grant"
mutant no_notice_release cancel_reaches_the_sleeping_consumer "a notice without its"
mutant no_publish_release ring_carries_records "Causality violation"
mutant no_refresh_acquire ring_carries_records "Causality violation"
mutant no_head_release ring_carries_records "Causality violation"
mutant no_reload_acquire ring_carries_records "Causality violation"
exit "$failed"
