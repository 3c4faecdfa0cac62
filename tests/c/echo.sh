#!/usr/bin/env bash
# Talks to a server that sends everything back. Usage: echo.sh PROGRAM
source "$(dirname "$0")/lib.sh"

serve "$1" 0
# As a person at a telnet would: line by line, both ends stay open.
exec 3<>"/dev/tcp/$host/$port"
for line in "Hello" "" "how are you?"; do
    printf '%s\r\n' "$line" >&3
    read -r answer <&3
    expect "a line" "$line"$'\r' "$answer"
done

# Far more than every buffer holds, from several clients at once.
head -c 5000000 /dev/urandom >"$scratch/much"
for client in 1 2 3; do
    python3 "$(dirname "$0")/talk.py" "$host" "$port" <"$scratch/much" >"$scratch/echo-$client" &
    clients+=($!)
done
wait "${clients[@]}"
for client in 1 2 3; do
    cmp "$scratch/much" "$scratch/echo-$client" || fail "what came back is not what was sent"
done

# The first one has been forgotten by nobody.
printf 'bye\r\n' >&3
read -r answer <&3
expect "the last line" "bye"$'\r' "$answer"
exec 3>&-
stop
