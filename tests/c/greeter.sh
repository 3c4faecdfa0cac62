#!/usr/bin/env bash
# Talks to a server that greets and hangs up. Usage: greeter.sh PROGRAM
source "$(dirname "$0")/lib.sh"

serve "$1" 0
talk() { python3 "$(dirname "$0")/talk.py" "$host" "$port"; }
greeting=$'<b>Hello from toolB!</b>\r'
expect "any bytes" "$greeting" "$(printf 'x' | talk)"
expect "many bytes" "$greeting" "$(head -c 3000 /dev/zero | talk)"
expect "a browser of long ago" "$greeting" "$(ask --http0.9 "http://$host:$port/")"
stop
