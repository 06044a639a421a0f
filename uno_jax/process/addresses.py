"""Addresses to listen on."""

from __future__ import annotations

import socket

from uno_jax.process.errors import UserError


def bound_socket(host: str, port: int) -> socket.socket:
    """Returns a socket with the address, so that a wrong one is reported before a model is loaded.

    Raises:
      UserError: the address cannot be used.
    """
    try:
        [(family, kind, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host}:{port} ({reason}); give another --host or --port") from error
    return listener
