#!/usr/bin/env bash
# Serves the FastAPI example. Usage: run.sh VENV PORT WORKERS
set -euo pipefail

venv=$1 port=$2 workers=$3

# A word of `make` for what toolb would say with its own. What is no port at all is left to toolb.
"$venv/bin/python" - "$port" <<'PYTHON'
import errno
import socket
import sys

port = sys.argv[1]
with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", int(port)))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sys.exit(f"Port {port} is taken; choose another, as in make run PORT=8090 (0: any)")
    except (ValueError, OverflowError):
        pass
PYTHON

if [[ $port =~ ^[1-9][0-9]*$ ]]; then
    echo "Once the example is served, in another terminal (Ctrl-C stops it here):"
    echo "    curl 'http://localhost:$port/api/users?id=123&role=admin'"
fi
exec "$venv/bin/toolb" run main:app --app-dir examples/fastapi --port "$port" --workers "$workers"
