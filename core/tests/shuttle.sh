#!/bin/sh
# Runs the shuttle tests of dispatch, then each mutant: a line of the shipped source left out, which
# must strand somebody.
set -eu
cd "$(dirname "$0")/../.."

export CARGO_TARGET_DIR=target/shuttle
export CARGO_PROFILE_TEST_OPT_LEVEL=1
export RUST_BACKTRACE=0

RUSTFLAGS='--cfg shuttle' cargo test -q -p toolb-core --test shuttle_dispatch

# mutant NAME TEST MESSAGE: the test must fail with the message.
mutant() {
    if out=$(RUSTFLAGS="--cfg shuttle --cfg mutant=\"$1\"" \
        cargo test -q -p toolb-core --test shuttle_dispatch "$2" 2>&1); then
        echo "mutant $1 survived" >&2
        exit 1
    fi
    case $out in
    *"$3"*) echo "mutant $1: found" ;;
    *)
        printf '%s\n' "$out" >&2
        echo "mutant $1 failed for another reason" >&2
        exit 1
        ;;
    esac
}

mutant no_push_recheck a_lone_waiter 'stranded: a ticket waits while a lane has room'
mutant no_release_recheck a_lone_waiter 'stranded: a ticket waits while a lane has room'
mutant no_second_call a_start_is_heard_of 'stranded: a loop sleeps and does not hear of starts'
