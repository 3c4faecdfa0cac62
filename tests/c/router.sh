#!/usr/bin/env bash
# Asks a router by curl. Usage: router.sh PROGRAM
source "$(dirname "$0")/lib.sh"

serve "$1" 0 2

expect "GET /" "Hello, World!" "$(ask "$url/")"
expect "GET /user/7" "7" "$(ask "$url/user/7")"
expect "an escaped id" "a b" "$(ask "$url/user/a%20b")"
expect "an escaped slash, which is one" "404" "$(status_of "$url/user/a%2Fb")"
expect "POST /user" "201" "$(status_of --data x "$url/user")"
expect "a chunked body" "chunky" "$(printf chunky | ask -H 'Transfer-Encoding: chunked' --data-binary @- "$url/user")"
expect "a wrong method" "405" "$(status_of -X PUT "$url/")"
expect "a wrong path" "404" "$(status_of "$url/none")"
expect "HEAD" "13" "$(ask --head "$url/" | tr -d '\r' | sed -n 's/^content-length: //p')"

stop
