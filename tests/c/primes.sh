#!/usr/bin/env bash
# Asks a server whose handler takes long. Usage: primes.sh PROGRAM
source "$(dirname "$0")/lib.sh"

serve "$1" 0
expect "no number" "400" "$(status_of "$url/primes/1x")"
expect "a result" "25" "$(ask "$url/primes/100" | tail -n 1)"
expect "progress" "1229 below 10001" "$(ask "$url/primes/100000" | head -n 1)"
# The answer goes out before the thread that computed it is done.
until [ "$(ask "$url/running")" = 0 ]; do :; done

# One that would take for ever holds up nobody, and gives up when its client leaves.
curl --silent --output /dev/null "$url/primes/999999999999999" &
client=$!
until [ "$(ask "$url/running")" = 1 ]; do :; done
kill "$client"
until [ "$(ask "$url/running")" = 0 ]; do :; done

# So does one that a stop finds at work, and its client hears of it.
curl --silent --output /dev/null --write-out '%{http_code}' "$url/primes/999999999999999" >"$scratch/status" &
client=$!
until [ "$(ask "$url/running")" = 1 ]; do :; done
stop
wait "$client" || true
expect "a computation without an end" "503" "$(cat "$scratch/status")"
exit 0
