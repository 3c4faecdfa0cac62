#!/usr/bin/env bash
# Runs a test program under $TOOLB_WRAPPER, if that is set. Usage: run.sh PROGRAM
# shellcheck disable=SC2086
exec ${TOOLB_WRAPPER:-} "$@"
