#!/usr/bin/env bash
# Uploads to a consumer. Usage: upload.sh PROGRAM
source "$(dirname "$0")/lib.sh"

serve "$1" 0
head -c 3000000 /dev/urandom >"$scratch/file"
sum_of() {  # FILE
    python3 - "$1" <<'PROGRAM'
import sys

data, value = open(sys.argv[1], "rb").read(), 0xCBF29CE484222325
for byte in data:
    value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
print(f'{{"bytes": {len(data)}, "fnv1a": "{value:016x}"}}')
PROGRAM
}
expected=$(sum_of "$scratch/file")

expect "nothing" '{"bytes": 0, "fnv1a": "cbf29ce484222325"}' "$(ask "$url/")"
expect "a byte" '{"bytes": 1, "fnv1a": "af63dc4c8601ec8c"}' "$(ask --data-binary a "$url/")"
expect "a file" "$expected" "$(ask -T "$scratch/file" "$url/")"
expect "in chunks" "$expected" "$(ask -T - "$url/" <"$scratch/file")"

# A client that takes its time holds up nobody; one that leaves is forgotten.
mkfifo "$scratch/slow"
ask -T "$scratch/slow" "$url/" >"$scratch/answer" &
slow=$!
drip() {  # Goes on byte by byte while the others are served: who says nothing for long is sent away.
    head -c 1000000 "$scratch/file"
    local at=1000000
    until [ -e "$scratch/served" ]; do
        dd if="$scratch/file" bs=1 skip=$at count=1 status=none
        at=$((at + 1))
        sleep 1  # not-sync: it is slow on purpose
    done
    tail -c +$((at + 1)) "$scratch/file"
}
drip >"$scratch/slow" &
drips=$!
mkfifo "$scratch/cut"
curl --silent -T "$scratch/cut" "$url/" >/dev/null &
leaves=$!
exec 4>"$scratch/cut"
head -c 2000000 "$scratch/file" >&4
kill "$leaves"
wait "$leaves" 2>/dev/null || true
exec 4>&-
for n in 1 2 3 4; do
    ask -T "$scratch/file" "$url/$n" >"$scratch/$n" &
    clients+=($!)
done
wait "${clients[@]}"
for n in 1 2 3 4; do
    expect "upload $n of four" "$expected" "$(cat "$scratch/$n")"
done
touch "$scratch/served"
wait "$drips" || true
wait "$slow"
expect "the slow one" "$expected" "$(cat "$scratch/answer")"
stop
