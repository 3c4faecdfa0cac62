#!/bin/sh
# Runs the shuttle tests of dispatch, then each mutant: a line of the shipped source left out, which
# must strand somebody.
set -eu
cd "$(dirname "$0")/../.."

export CARGO_TARGET_DIR=target/shuttle
export CARGO_PROFILE_TEST_OPT_LEVEL=1
export RUST_BACKTRACE=0

RUSTFLAGS='--cfg shuttle' cargo test -q -p toolb-core --test shuttle_dispatch

for mutant in no_push_recheck no_release_recheck; do
    if out=$(RUSTFLAGS="--cfg shuttle --cfg mutant=\"$mutant\"" \
        cargo test -q -p toolb-core --test shuttle_dispatch a_lone_waiter 2>&1); then
        echo "mutant $mutant survived" >&2
        exit 1
    fi
    case $out in
    *'stranded: a ticket waits while a lane has room'*) echo "mutant $mutant: found" ;;
    *)
        printf '%s\n' "$out" >&2
        echo "mutant $mutant failed for another reason" >&2
        exit 1
        ;;
    esac
done
