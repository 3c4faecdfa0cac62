#!/usr/bin/env bash
# Asks the smallest server. Usage: hello.sh PROGRAM
source "$(dirname "$0")/lib.sh"

serve "$1" 0
expect "GET /" "Hello, World!" "$(ask "$url/")"
expect "a wrong path" "404" "$(status_of "$url/none")"
stop
