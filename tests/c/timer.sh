#!/usr/bin/env bash
# Asks a server that answers by the clock. Usage: timer.sh PROGRAM
source "$(dirname "$0")/lib.sh"

serve "$1" 0
read -r answer took <<<"$(ask --write-out ' %{time_total}' "$url/after/50" | tr '\n' ' ')"
expect "a later answer" "waited" "$answer"
awk "BEGIN { exit !($took >= 0.05) }" || fail "an answer after 50 ms came after $took s"
expect "ticks" "tick 1 tick 2 tick 3 " "$(ask "$url/ticks/3" | tr '\n' ' ')"
expect "no number" "400" "$(status_of "$url/ticks/0")"
expect "no number" "400" "$(status_of "$url/after/soon")"

# A client that leaves, and one that a stop finds waiting.
curl --silent --no-buffer "$url/ticks/1000" >"$scratch/ticks" &
client=$!
until [ -s "$scratch/ticks" ]; do :; done
kill "$client" || true
wait "$client" && fail "a thousand ticks came at once"
expect "the first of many" "tick 1" "$(head -n 1 "$scratch/ticks")"
curl --silent --verbose --output /dev/null --write-out '%{http_code}' "$url/after/3600000" \
    >"$scratch/status" 2>"$scratch/trace" &
client=$!
until grep -q '^> GET' "$scratch/trace"; do :; done # it has been sent
expect "others meanwhile" "waited" "$(ask "$url/after/0")"
stop
wait "$client" || true
expect "a timer of an hour" "503" "$(cat "$scratch/status")"
exit 0
