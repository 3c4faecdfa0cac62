#!/usr/bin/env bash
# pythons.sh TESTED [PYTEST ARGUMENTS]...
#
# Tests the extension with every supported Python that is on this machine, except the one of the
# virtual environment TESTED. Each has a virtual environment and a stamp in build/ (PYTHON_HOMES says
# where else); what has passed and has not changed since is not tested again, unless arguments for
# pytest are given.
#
# Pythons are found by name on PATH, among those of pyenv, or in PYTHONS, which names some more.
set -euo pipefail
cd "$(dirname "$0")/.."

SUPPORTED=(3.10 3.11 3.12 3.13 3.14)
TESTS=(tests/asgi tests/example bindings/python/tests)
# What is built, how, and what it is tested with.
PARTS=(Cargo.toml Cargo.lock core/Cargo.toml core/src cli bindings/python requirements pytest.ini
    scripts/venv.sh scripts/pythons.sh "${TESTS[@]}" tests/program.py examples/python examples/fastapi)

tested=$1
shift
homes=$(realpath -m "${PYTHON_HOMES:-build}")

# The version of an interpreter, "3.12"; nothing if there is none of this name, or it is broken: a
# shim of pyenv may stand for a version that is not chosen here.
version_of() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

# The interpreter for a version.
find_python() {
    local version=$1 candidate newest
    for candidate in ${PYTHONS:-} "python$version" python3; do
        if [[ "$(version_of "$candidate")" == "$version" ]]; then
            echo "$candidate"
            return
        fi
    done
    command -v pyenv >/dev/null 2>&1 || return 0
    newest=$(pyenv versions --bare 2>/dev/null | grep -E "^${version//./\\.}\.[0-9]+$" | sort -V | tail -n 1 || true)
    if [[ -n "$newest" ]]; then
        candidate=$(pyenv prefix "$newest")/bin/python
        [[ "$(version_of "$candidate")" != "$version" ]] || echo "$candidate"
    fi
}

digest() {
    find "${PARTS[@]}" -type f -not -name '*.so' -not -name '*.pyc' -not -path '*/target/*' -print0 |
        sort -z | xargs -0 sha256sum | sha256sum | cut -d ' ' -f 1
}

# Builds and installs the extension as users get it: as a wheel.
build() {
    local home=$1 python=$1/venv/bin/python
    rm -rf "$home/wheel"
    PYO3_PYTHON="$python" "$home/venv/bin/maturin" build --quiet --release --locked \
        --manifest-path bindings/python/Cargo.toml --interpreter "$python" --out "$home/wheel" &&
        "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
            --force-reinstall "$home"/wheel/*.whl
}

# Brings a version up to date and tests it.
try() {
    local version=$1 python=$2 home=$homes/python$1 state
    shift 2
    state="$("$python" -VV) $sources"
    if (($# == 0)) && [[ "$(cat "$home/passed" 2>/dev/null)" == "$state" ]]; then
        echo "Python $version: nothing has changed since its tests passed."
        return
    fi
    echo "Python $version:"
    mkdir -p "$home"
    PYTHON=$python scripts/venv.sh "$home/venv" requirements/build.txt requirements/test.txt || return
    if [[ "$(cat "$home/built" 2>/dev/null)" != "$state" ]]; then
        build "$home" || return
        echo "$state" >"$home/built"
    fi
    "$home/venv/bin/python" -m pytest -q -o "cache_dir=$home/pytest" "${TESTS[@]}" "$@" || return
    (($#)) || echo "$state" >"$home/passed"
}

sources=$(digest)
own=$(version_of "$tested/bin/python")
failed=()
for version in "${SUPPORTED[@]}"; do
    [[ "$version" != "$own" ]] || continue
    python=$(find_python "$version")
    if [[ -z "$python" ]]; then
        echo "Python $version is not on this machine and was not tested: pyenv install $version gets it, or name it with PYTHONS=/path/to/python$version"
        continue
    fi
    try "$version" "$python" "$@" || failed+=("$version")
done
if ((${#failed[@]})); then
    echo "Failed with Python ${failed[*]}." >&2
    exit 1
fi
