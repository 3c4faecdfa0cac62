#!/usr/bin/env bash
# Every function of the library is used wrongly somewhere in the tests. Usage: misused.sh SOURCE_DIR
source "$(dirname "$0")/lib.sh"

while read -r function; do
    grep -q "\b$function(" "$1"/tests/c/*.c || fail "no tests/c/*.c calls $function"
done <"$1/ffi/symbols.txt"
