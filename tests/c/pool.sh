#!/usr/bin/env bash
# Asks an engine with consumers inside and outside of its process. Usage: pool.sh PROGRAM
source "$(dirname "$0")/lib.sh"

bus=$scratch/bus
serve "$1" "$bus"
expect "the engine" "inline" "$(ask "$url/inline")"
expect "the consumer in its process" "own" "$(ask "$url/")"
expect "the mode of the bus" "600" "$(stat -c %a "$bus")"

# Asks until one of the consumers of that name answers.
until_hears() {  # NAME
    local text=""
    until [ "$text" = "$1" ]; do
        text=$(ask --parallel --parallel-immediate "$url/a" "$url/b" "$url/c" "$url/d" -w '\n' 2>/dev/null | grep -x "$1" | head -n 1) || true
    done
}

"$1" "$bus" attach &
visitor=$!
until_hears visitor
until_hears own
# A visitor that dies takes nobody along; one that is told to end ends well.
kill -KILL "$visitor"
wait "$visitor" 2>/dev/null || true
for _ in 1 2 3 4 5 6 7 8; do
    expect "who is left" "own" "$(ask "$url/")"
done
"$1" "$bus" attach &
visitor=$!
until_hears visitor
kill -TERM "$visitor"
wait "$visitor" || fail "the visitor ended with $?"
expect "who is left" "own" "$(ask "$url/")"

# One that is there at the end is told to finish.
"$1" "$bus" attach &
visitor=$!
until_hears visitor
stop
wait "$visitor" || fail "the visitor ended with $?"
[ ! -e "$bus" ] && [ ! -e "$bus.lock" ] || fail "something is left of the bus"
code=0
"$1" "$bus" attach 2>"$scratch/errors" || code=$?
[ "$code" != 0 ] || fail "it has attached to nothing"
grep -q 'is `toolb serve` running' "$scratch/errors" || fail "$(cat "$scratch/errors")"
