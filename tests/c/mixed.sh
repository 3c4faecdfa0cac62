#!/usr/bin/env bash
# One engine with a C++ route and pools in other processes. Usage: mixed.sh SOURCE_DIR UPLOAD MIXED
#
# Python workers take part if there is a `toolb`: $TOOLB_PROGRAM, or that of the virtual environment.
source "$(dirname "$0")/lib.sh"

toolb=${TOOLB_PROGRAM:-$1/.venv/bin/toolb}
bus="$scratch/bus"

serve "$3" 0 "$bus"
expect "C++" '{"by": "C++", "id": 7}' "$(ask "$url/native/7")"

# A consumer in C or C++ that is started by hand. What comes before it waits for it.
ask --data-binary a "$url/upload" >"$scratch/answer" &
client=$!
TOOLB_BUS="$bus" "$2" &
consumer=$!
wait "$client"
expect "a consumer" '{"bytes": 1, "fnv1a": "af63dc4c8601ec8c"}' "$(cat "$scratch/answer")"
expect "C++ beside it" '{"by": "C++", "id": 8}' "$(ask "$url/native/8")"
kill "$consumer"
wait "$consumer" || true

if [ -x "$toolb" ]; then
    "$toolb" work app:app --app-dir "$1/examples/cpp/mixed" --bus "$bus" &
    consumer=$!
    # A request may have waited for long enough before the worker has started.
    while [ "$(status_of "$url/hello/Anna")" = 503 ]; do :; done
    expect "Python" '{"by": "Python", "path": "/hello/Anna"}' "$(ask "$url/hello/Anna")"
    expect "C++ beside it" '{"by": "C++", "id": 9}' "$(ask "$url/native/9")"
    kill "$consumer"
    wait "$consumer" || true
else
    echo "without Python workers: there is no $toolb"
fi
stop
