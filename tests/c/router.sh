#!/usr/bin/env bash
# Asks a router by curl. Usage: router.sh PROGRAM
set -euo pipefail

fifo=$(mktemp -u)
mkfifo "$fifo"
"$1" 0 2 >"$fifo" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -f "$fifo"' EXIT
read -r line <"$fifo"
url=${line#serving on }

expect() {  # WHAT EXPECTED ACTUAL
    if [ "$2" != "$3" ]; then
        echo "$1: expected '$2', got '$3'" >&2
        exit 1
    fi
}

ask() { curl --silent --show-error --max-time 20 "$@"; }

expect "GET /" "Hello, World!" "$(ask "$url/")"
expect "GET /user/7" "7" "$(ask "$url/user/7")"
expect "an escaped id" "a b" "$(ask "$url/user/a%20b")"
expect "POST /user" "201" "$(ask --output /dev/null --write-out '%{http_code}' --data x "$url/user")"
expect "a chunked body" "chunky" "$(printf chunky | ask -H 'Transfer-Encoding: chunked' --data-binary @- "$url/user")"
expect "a wrong method" "405" "$(ask --output /dev/null --write-out '%{http_code}' -X PUT "$url/")"
expect "a wrong path" "404" "$(ask --output /dev/null --write-out '%{http_code}' "$url/none")"
expect "HEAD" "13" "$(ask --head "$url/" | tr -d '\r' | sed -n 's/^content-length: //p')"

kill -TERM "$server"
wait "$server"
