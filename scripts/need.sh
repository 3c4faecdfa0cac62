#!/usr/bin/env bash
# need.sh TOOL PACKAGE WHY [TOOL PACKAGE WHY]...
#
# Makes sure each TOOL can be run. What is missing is installed with apt-get when that is possible
# (root on a Debian-like system); otherwise the exact line that installs all of it is printed, and
# the script fails. WHY ends the sentence "TOOL is needed to ...".
set -euo pipefail

if (($# == 0 || $# % 3 != 0)); then
    echo "usage: need.sh TOOL PACKAGE WHY [TOOL PACKAGE WHY]..." >&2
    exit 2
fi

tools=() packages=()
while (($#)); do
    if ! command -v "$1" >/dev/null 2>&1; then
        echo "$1 is needed to $3 and is not installed." >&2
        tools+=("$1")
        packages+=("$2")
    fi
    shift 3
done
((${#tools[@]} == 0)) && exit 0

if [[ "$(id -u)" != 0 ]] || ! command -v apt-get >/dev/null 2>&1; then
    sudo=""
    [[ "$(id -u)" == 0 ]] || sudo="sudo "
    echo "Install it with:  ${sudo}apt-get install -y ${packages[*]}" >&2
    exit 1
fi

echo "Installing ${packages[*]} ..." >&2
export DEBIAN_FRONTEND=noninteractive
if ! apt-get install -y -q --no-install-recommends "${packages[@]}" >/dev/null 2>&1; then
    # The package lists are missing or old: fetch them once, then let apt-get speak for itself.
    apt-get update -q >&2
    apt-get install -y -q --no-install-recommends "${packages[@]}" >&2
fi

for tool in "${tools[@]}"; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "${packages[*]} is installed, but $tool still cannot be found on PATH." >&2
        exit 1
    fi
done
