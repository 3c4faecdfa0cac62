#!/usr/bin/env bash
# Asks handlers that an engine runs, and then the same ones that a consumer runs. Usage: either.sh PROGRAM
source "$(dirname "$0")/lib.sh"

socket=$scratch/socket

# What the handlers have counted. Where there is a deadline, this request may miss it, too.
counted() {
    local answer status=
    until [ "$status" = 200 ]; do
        answer=$(ask --write-out ' %{http_code}' "$url/counted") || fail "nobody counts"
        status=${answer##* }
        case $status in
        200 | 503 | 504) ;;
        *) fail "$answer" ;;
        esac
    done
    echo "${answer% *}"
}

for way in inline consumer; do
    serve "$1" "$way" "$socket"

    expect "$way: fields" "host=h user-agent=u accept=*/* x-a=1 x-b= x-a=2 " \
        "$(ask -H 'Host: h' -A u -H 'X-A: 1' -H 'X-B;' -H 'X-A: 2' "$url/fields" |
            tr '[:upper:]\n' '[:lower:] ')"
    expect "$way: a peer" "from 127.0.0.1" "$(ask "$url/peer")"
    expect "$way: no peer" "from " "$(ask --unix-socket "$socket" "http://x/peer")"

    expect "$way: a parameter" "GET a b" "$(ask "$url/user/a%20b")"
    expect "$way: by method" "PUT 7" "$(ask -X PUT "$url/user/7")"
    expect "$way: HEAD" "200" "$(status_of --head "$url/user/7")"
    expect "$way: the rest" "BREW a/b.txt" "$(ask -X BREW -d body "$url/files/a/b.txt")"
    expect "$way: 404" "Not Found 404 text/plain; charset=utf-8" \
        "$(ask -w '%{http_code} %{content_type}' "$url/nothing" | tr '\n' ' ')"
    expect "$way: 405" "Method Not Allowed 405 GET, HEAD, PUT" \
        "$(ask -X DELETE -w '%{http_code} %header{allow}' "$url/user/7" | tr '\n' ' ')"
    expect "$way: 400" "400" "$(status_of "$url/user/%ff")"
    expect "$way: a state" "123" "$(ask "$url/count" "$url/count" "$url/count")"

    # A hundred requests, answered by four threads; in order on each connection.
    for n in $(seq 100); do
        printf 'url = "%s/later/%s"\noutput = "%s/later-%s"\n' "$url" "$n" "$scratch" "$n"
    done >"$scratch/many"
    ask --no-progress-meter --parallel --config "$scratch/many" 2>"$scratch/errors" ||
        fail "$(cat "$scratch/errors")"
    for n in $(seq 100); do
        expect "$way: $n of many" "$n" "$(cat "$scratch/later-$n")"
    done
    expect "$way: a status" "one 202" "$(ask -w ' %{http_code}' "$url/later/one")"
    expect "$way: a length" "3" "$(ask --head "$url/later/two" | tr -d '\r' | sed -n 's/^content-length: //p')"

    # Parts that are larger than every window, for a reader that takes its time, and one that leaves.
    # The first reads nothing until the writer waits for it: more than all buffers on the way hold.
    expect "$way: parts" "20000000" "$(ask "$url/parts/400" | {
        until [ "$(ask "$url/full")" = yes ]; do :; done
        wc -c
    })"
    curl --silent --max-time 200 "$url/parts/10000" | head -c 100000 >/dev/null || true
    expect "$way: it was told of room" "yes" "$(ask "$url/roomy")"

    expect "$way: an abort" "500" "$(status_of "$url/abort")"
    ask "$url/break/20" >/dev/null 2>&1 && fail "$way: a response that breaks off looks whole"
    expect "$way: later without a token" "500" "$(status_of "$url/confused/late")"
    expect "$way: a token, and an answer" "500" "$(status_of "$url/confused/token")"

    # A client that leaves is told of: the third, after the one that left, and the confused one.
    curl --silent "$url/hold" &
    client=$!
    until [[ $(ask "$url/counted") = *" 2 held" ]]; do :; done
    kill "$client"
    wait "$client" && fail "$way: /hold was answered"
    until [ "$(ask "$url/counted")" = "3 cancelled, 2 held" ]; do :; done

    # The end, with somebody waiting: 503 by the engine that goes.
    curl --silent --fail "$url/hold" >/dev/null &
    waiter=$!
    until [ "$(ask "$url/counted")" = "3 cancelled, 3 held" ]; do :; done
    stop
    if wait "$waiter"; then
        fail "$way: /hold was answered"
    fi

    # A deadline is 504 once somebody has begun the request. One that nobody has begun in time is not held:
    # 503 if no consumer had room, 504 if it was on its way to one.
    serve "$1" "$way" "$socket" 200
    held=0
    until [ "$held" = 1 ]; do
        expect "$way: as many as were held" "0" "$held"
        status=$(status_of "$url/hold")
        counts=$(counted)
        held=${counts#*, }
        held=${held% held}
        case "$way $held $status" in
        *" 1 504" | "consumer 0 503" | "consumer 0 504") ;;
        *) fail "$way: a deadline: $status with $counts" ;;
        esac
    done
    until [ "$(counted)" = "1 cancelled, 1 held" ]; do :; done
    stop
done
