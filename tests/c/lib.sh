# What the shell tests of C and C++ programs share. To be sourced.
set -euo pipefail

scratch=$(mktemp -d)
server=""
trap finish EXIT

# Starts a program that prints "serving on URL" first; sets `url`, `host` and `port`. Programs run
# under $TOOLB_WRAPPER, such as "valgrind ...", if that is set.
serve() {  # PROGRAM [ARGUMENT]...
    [ -p "$scratch/banner" ] || mkfifo "$scratch/banner"
    # shellcheck disable=SC2086
    ${TOOLB_WRAPPER:-} "$@" >"$scratch/banner" &
    server=$!
    local line=""
    read -r line <"$scratch/banner" || fail "$1 ended without a word"
    url=${line#serving on }
    port=${url##*:}
    host=${url#*//}
    host=${host%:*}
}

# Stops the program as a service manager would, and expects that it ends well.
stop() {
    kill -TERM "$server"
    local code=0
    wait "$server" || code=$?
    server=""
    [ "$code" = 0 ] || fail "the program ended with $code after SIGTERM"
}

ask() {  # [ARGUMENT OF CURL]... URL
    curl --silent --show-error --max-time 200 "$@"
}

status_of() {  # [ARGUMENT OF CURL]... URL
    ask --output /dev/null --write-out '%{http_code}' "$@"
}

expect() {  # WHAT EXPECTED ACTUAL
    [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
}

fail() {
    echo "$1" >&2
    exit 1
}

finish() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$scratch"
}
