"""Ports of processes that work together: whether one answers, and one that answers the others."""

from __future__ import annotations

import socket

from neas_tf.common.errors import NeasError


def answers(host: str) -> bool:
    """Whether something listens at `host:port`."""
    name, _, port = host.rpartition(":")
    try:
        with socket.create_connection((name.strip("[]"), int(port)), timeout=2.0):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def listening(host: str) -> socket.socket:
    """A socket at this worker's own port, for the others to see; nothing is read from it.

    Raises:
      NeasError: for an address without a port, or whose port is taken.
    """
    port = host.rpartition(":")[2]
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(
            ("", int(port)), family=family, backlog=512, dualstack_ipv6=both
        )
    except (OSError, ValueError, OverflowError) as error:
        raise NeasError(
            f"workers: this worker's address {host!r} cannot be listened at ({error}); expected "
            "HOST:PORT with a free port."
        ) from None
