#!/usr/bin/env bash
# Runs every check, the quick ones first, and tells at the end which of them failed.
# With names as arguments it runs only those: scripts/lint.sh floors clippy
set -uo pipefail
cd "$(dirname "$0")/.."

venv=.venv/bin
failed=() ran=0
only=" $* "

check() {
    local name=$1
    shift
    [[ "$only" == "  " || "$only" == *" $name "* ]] || return 0
    ran=$((ran + 1))
    local log started=$SECONDS
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        printf '  ok      %-10s %3d s\n' "$name" $((SECONDS - started))
    else
        printf '  FAILED  %-10s %s\n' "$name" "$*"
        sed 's/^/          /' "$log"
        failed+=("$name")
    fi
    rm -f "$log"
}

# plot.py needs matplotlib, which only the comparisons install.
typed=(scripts examples/fastapi/main.py bench/run.py bench/hotspots.py bench/instructions.py)
[[ -d bindings/python/python/toolb ]] && typed+=(bindings/python/python/toolb)

# The checks are checked first: each must flag its bad samples.
check selftest $venv/python -m pytest -q scripts/tests
check floors $venv/python scripts/floors.py
check unsafe $venv/python scripts/unsafe_code.py
check habits $venv/python scripts/habits.py
check links $venv/python scripts/links.py
check messages $venv/python scripts/messages.py
check fmt cargo fmt --all --check -- --color never
check busfmt cargo fmt --manifest-path bench/bus/Cargo.toml --check -- --color never
check ruff $venv/ruff check .
check pyformat $venv/ruff format --check .
check mypy $venv/mypy --strict "${typed[@]}"
check header bash scripts/header.sh --check
check abi $venv/python scripts/abi.py
check clippy cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
# Tests that need a feature are not among all targets.
check features cargo clippy --quiet --locked --package toolb-core --all-targets \
    --features crash-points -- -D warnings
# Links to private items are welcome: these pages are for whoever works on the house.
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" check rustdoc \
    cargo doc --quiet --locked --no-deps --document-private-items --workspace --exclude toolb-python

if ((ran == 0)); then
    echo "There is no check called $*." >&2
    exit 2
fi
if ((${#failed[@]})); then
    echo "Failed: ${failed[*]}" >&2
    exit 1
fi
echo "All $ran checks passed."
