#!/usr/bin/env bash
# Asks what answers later by curl. Usage: later.sh PROGRAM
source "$(dirname "$0")/lib.sh"

socket=$scratch/socket
serve "$1" "$socket"

expect "a thread" "hello 201 thread" \
    "$(ask --write-out ' %{http_code} %header{x-from}' "$url/thread/hello")"
expect "a Unix socket" "hello" "$(ask --unix-socket "$socket" "http://x/thread/hello")"
expect "its mode" "600" "$(stat -c %a "$socket")"
expect "a timer" "ring" "$(ask "$url/timer/5")"
expect "a pipe" "through a pipe" "$(ask "$url/watch")"
expect "an abort" "500" "$(status_of "$url/abort")"
expect "HEAD" "5" "$(ask --head "$url/thread/hello" | tr -d '\r' | sed -n 's/^content-length: //p')"

# Larger than every window, for a reader that takes its time.
for way in stream called; do
    expect "$way" "5000000" "$(ask --limit-rate 40M "$url/$way/500" | wc -c)"
    # A reader that leaves in the middle.
    curl --silent --max-time 200 "$url/$way/10000" | head -c 100000 >/dev/null || true
done

# Many at once, in order on each connection.
for n in $(seq 50); do
    printf 'url = "%s/thread/%s"\noutput = "%s/thread-%s"\n' "$url" "$n" "$scratch" "$n"
    printf 'url = "%s/timer/%s"\noutput = "%s/timer-%s"\n' "$url" "$((n % 7))" "$scratch" "$n"
done >"$scratch/many"
ask --no-progress-meter --parallel --config "$scratch/many" 2>"$scratch/errors" || fail "$(cat "$scratch/errors")"
for n in $(seq 50); do
    expect "thread $n of many" "$n" "$(cat "$scratch/thread-$n")"
    expect "timer $n of many" "ring" "$(cat "$scratch/timer-$n")"
done

# A client that leaves is told of.
curl --silent "$url/wait" &
client=$!
until [ "$(ask "$url/waits")" = 1 ]; do :; done
kill "$client"
wait "$client" && fail "/wait was answered"
until [ "$(ask "$url/cancelled")" = 1 ]; do :; done

# Each loop counts for itself: over one connection the count goes up by one.
counts=$(ask "$url/count" "$url/count" "$url/count" -w '\n' | sed 's/.*://' | tr '\n' ' ')
expect "a state" "1 2 3 " "$counts"

# A stop with somebody waiting: the program checks that it is told, and lets go of everything.
curl --silent --output /dev/null --write-out '%{http_code}' "$url/wait" >"$scratch/status" &
waiter=$!
until [ "$(ask "$url/waits")" = 2 ]; do :; done
stop
wait "$waiter" || true
expect "somebody who waits" "503" "$(cat "$scratch/status")"
[ ! -e "$socket" ] || fail "the socket file is still there"

serve "$1" "$socket" 50 1
expect "a deadline" "504" "$(status_of "$url/wait")"
# That it was late is counted before it is told; that its client has gone, some time later.
expect "its count" "1" "$(ask "$url/stats" | cut -d ' ' -f 1)"
until [ "$(ask "$url/stats")" = "1 1" ]; do :; done
expect "one that is told" "1" "$(ask "$url/cancelled")"
stop
