#!/usr/bin/env bash
# venv.sh DIR REQUIREMENTS...
#
# Makes a virtual environment in DIR, unless there is one, and installs the requirement files into
# it. PYTHON chooses the interpreter; without it the first of python3, python3.14 ... python3.10
# that is new enough.
set -euo pipefail

dir=$1
shift

new_enough() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

if [[ ! -x "$dir/bin/python" ]] || ! "$dir/bin/python" -m pip --version >/dev/null 2>&1; then
    python=""
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10}; do
        if new_enough "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [[ -z "$python" && -z "${PYTHON:-}" ]] && ! command -v python3 >/dev/null 2>&1; then
        "$(dirname "$0")/need.sh" python3 python3 "run Python applications"
        new_enough python3 && python=python3
    fi
    if [[ -z "$python" ]]; then
        echo "Python 3.10 or newer is needed; none of these is: ${PYTHON:-python3, python3.10 to python3.14}." >&2
        echo "Name one with:  make PYTHON=/path/to/python3 ..." >&2
        exit 1
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        # Debian keeps these modules in a package of their own, named after the version.
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null 2>&1; then
            export DEBIAN_FRONTEND=noninteractive
            echo "Installing python$version-venv ..." >&2
            apt-get install -y -q "python$version-venv" >/dev/null 2>&1 ||
                { apt-get update -q && apt-get install -y -q "python$version-venv"; } >&2
        else
            echo "$python cannot make virtual environments. Install what is missing with:" >&2
            echo "    sudo apt-get install -y python$version-venv" >&2
            exit 1
        fi
    fi
    echo "Making $dir with $("$python" --version)" >&2
    "$python" -m venv --clear "$dir"
fi

args=()
for file in "$@"; do
    args+=(-r "$file")
done
if ((${#args[@]})); then
    echo "Installing $* into $dir" >&2
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "${args[@]}"
fi
