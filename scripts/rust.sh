#!/usr/bin/env bash
# Makes sure there is a Rust toolchain new enough to build toolB, and a linker for it.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)

if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo is needed to build the engine and is not on PATH." >&2
    echo "Install Rust $wanted or newer with rustup (https://rustup.rs), then open a new shell." >&2
    exit 1
fi

found=$(rustc --version | cut -d' ' -f2 | cut -d- -f1)
if [[ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n1)" != "$wanted" ]]; then
    echo "Rust $found is too old: toolB needs $wanted or newer. Run:  rustup update stable" >&2
    exit 1
fi

scripts/need.sh cc gcc "link the engine"
