#!/usr/bin/env bash
# Asks handlers that an engine runs, and then the same ones that a consumer runs. Usage: either.sh PROGRAM
source "$(dirname "$0")/lib.sh"

socket=$scratch/socket

for way in inline consumer; do
    serve "$1" "$way" "$socket"

    expect "$way: fields" "host=h user-agent=u accept=*/* x-a=1 x-b= x-a=2 " \
        "$(ask -H 'Host: h' -A u -H 'X-A: 1' -H 'X-B;' -H 'X-A: 2' "$url/fields" |
            tr '[:upper:]\n' '[:lower:] ')"
    expect "$way: a peer" "from 127.0.0.1" "$(ask "$url/peer")"
    expect "$way: no peer" "from " "$(ask --unix-socket "$socket" "http://x/peer")"

    stop
done
