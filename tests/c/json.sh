#!/usr/bin/env bash
# Asks a store of documents. Usage: json.sh PROGRAM
source "$(dirname "$0")/lib.sh"

serve "$1" 0
put() {  # ID BODY
    status_of -X PUT -H 'Content-Type: application/json; charset=utf-8' --data-binary "$2" "$url/documents/$1"
}

expect "an empty store" '{"ids": []}' "$(ask "$url/documents")"
expect "a new document" "201" "$(put a '{"n": 1}')"
expect "another" "201" "$(put 'b%22%0Ac' '[]')"
expect "the same again" "204" "$(put a '{"n": 2}')"
expect "a document" '{"n": 2}' "$(ask "$url/documents/a")"
expect "its type" "application/json" \
    "$(ask --output /dev/null --write-out '%{content_type}' "$url/documents/a")"
expect "the list" '{"ids": ["a", "b\"\u000ac"]}' "$(ask "$url/documents")"
expect "not JSON" "415" "$(status_of -X PUT --data x "$url/documents/c")"
expect "an unknown document" "404" "$(status_of "$url/documents/c")"
expect "forgetting" "204" "$(status_of -X DELETE "$url/documents/a")"
expect "forgetting twice" "404" "$(status_of -X DELETE "$url/documents/a")"
expect "what is left" '{"ids": ["b\"\u000ac"]}' "$(ask "$url/documents")"
stop
