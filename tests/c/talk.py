#!/usr/bin/env python3
"""Sends standard input to HOST PORT, then says that it is all, and writes what comes until the end.

Usage: talk.py HOST PORT
"""

from __future__ import annotations

import socket
import sys
import threading


def send(peer: socket.socket, data: bytes) -> None:
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)


with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60) as peer:
    sender = threading.Thread(target=send, args=(peer, sys.stdin.buffer.read()))
    sender.start()
    while data := peer.recv(65536):
        sys.stdout.buffer.write(data)
    sender.join()
