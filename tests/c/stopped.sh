#!/usr/bin/env bash
# Stops a program whose engine nobody runs. Usage: stopped.sh PROGRAM
source "$(dirname "$0")/lib.sh"

serve "$1"
expect "the answer" "hello" "$(ask "$url/")"
stop
