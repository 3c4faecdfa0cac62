#!/usr/bin/env bash
# Writes include/toolb.h from the ffi crate; with --check says whether it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --quiet --locked -p toolb-header -- "$@"
