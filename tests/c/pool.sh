#!/usr/bin/env bash
# Asks an engine with consumers inside and outside of its process. Usage: pool.sh PROGRAM
source "$(dirname "$0")/lib.sh"

bus=$scratch/bus
serve "$1" "$bus"
expect "the engine" "inline" "$(ask "$url/inline")"
expect "the consumer in its process" "own" "$(ask "$url/")"
expect "the mode of the bus" "600" "$(stat -c %a "$bus")"

# While one of the two consumers holds a request, the other one answers, be it that it has to come first.
mkfifo "$bus.hold"
hear_both() {
    ask "$url/hold" >"$scratch/held" &
    local holder=$! other
    exec 3>"$bus.hold"
    other=$(ask "$url/")
    exec 3>&-
    wait "$holder"
    expect "both of them" "own visitor " "$(printf '%s\n' "$other" "$(cat "$scratch/held")" | sort | tr '\n' ' ')"
}

"$1" "$bus" attach &
visitor=$!
hear_both
# A visitor that dies takes nobody along; one that is told to end ends well.
kill -KILL "$visitor"
wait "$visitor" 2>/dev/null || true
for _ in 1 2 3 4 5 6 7 8; do
    expect "who is left" "own" "$(ask "$url/")"
done
"$1" "$bus" attach &
visitor=$!
hear_both
kill -TERM "$visitor"
wait "$visitor" || fail "the visitor ended with $?"
expect "who is left" "own" "$(ask "$url/")"

# One that is there at the end is told to finish.
"$1" "$bus" attach &
visitor=$!
hear_both
stop
wait "$visitor" || fail "the visitor ended with $?"
[ ! -e "$bus" ] && [ ! -e "$bus.lock" ] || fail "something is left of the bus"
code=0
"$1" "$bus" attach 2>"$scratch/errors" || code=$?
[ "$code" != 0 ] || fail "it has attached to nothing"
grep -q 'is `toolb serve` running' "$scratch/errors" || fail "$(cat "$scratch/errors")"
