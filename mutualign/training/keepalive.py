"""Connections to other computers fail soon after the other side has lost its power or its network.

By default a connection on which nothing arrives stays open for hours. With TCP keep-alive, the system asks the other
side again and again whether it is there, whatever both programs do. torch.distributed does not turn it on.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

IDLE_SECONDS = 5  # without a message, until the other side is asked,
PROBE_SECONDS = 5  # and until it is asked again
PROBES = 3  # without an answer, until the connection counts as lost


def keep_connections_alive() -> None:
    """Turn keep-alive on for every TCP connection that this process has open."""
    options = {
        "TCP_KEEPIDLE": IDLE_SECONDS,
        "TCP_KEEPALIVE": IDLE_SECONDS,  # the same, on macOS
        "TCP_KEEPINTVL": PROBE_SECONDS,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": 1000 * (IDLE_SECONDS + PROBES * PROBE_SECONDS),  # milliseconds, for messages under way
    }
    for number in _open_files():
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            connection = socket.socket(fileno=os.dup(number))  # shares its options with the original
        except OSError:
            continue  # closed in between
        with connection:
            if connection.type == socket.SOCK_STREAM and connection.family in (socket.AF_INET, socket.AF_INET6):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in options.items():
                    if hasattr(socket, name):
                        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _open_files() -> list[int]:
    """Return the numbers of all files and connections of this process; none on a system that does not list them."""
    folder = Path("/dev/fd")
    return [int(file.name) for file in folder.iterdir()] if folder.is_dir() else []
