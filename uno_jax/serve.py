"""Serves a model with the endpoints of OpenAI's API: `python -m uno_jax.serve --checkpoint=DIR` (docs/serving.md).

If the environment variable UNO_API_KEY is set, requests must have this key.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Sequence

from absl import flags

from uno_jax.inference.options import (
    define_model,
    define_pictures,
    define_texts,
    define_thoughts,
    load_from_flags,
    picture_settings,
    text_config,
    thought_config,
)
from uno_jax.process.addresses import bound_socket
from uno_jax.process.errors import exit_with_message
from uno_jax.process.flags import define_fields, field_values, parse_flags, section_of
from uno_jax.process.signals import exit_on_signals
from uno_jax.process.start_up import set_up_jax

try:
    import uvicorn

    from uno_jax.serving.app import make_app
except ImportError as error:
    if str(error.name).partition(".")[0] not in ("fastapi", "starlette", "uvicorn", "python_multipart"):
        raise
    sys.exit(f"The server needs {error.name}: pip install -r requirements-serve.txt, or pip install 'uno-jax[serve]'")
from uno_jax.serving.server import Limits, Server

KEY = "UNO_API_KEY"
"""Environment variable with the key that requests must have."""

_LIMITS = {
    "queue": "maximum pictures and answers that wait; a request beyond it is answered with status 429",
    "timeout": "maximum seconds of a request, from its arrival to the end of its reply",
    "batch": "maximum pictures or answers in a batch",
    "batch_wait": "seconds to wait for a batch to fill",
}


def main(arguments: Sequence[str]) -> None:
    """Loads the model, and serves it until interrupted."""
    options = flags.FlagValues()
    _define(options)
    parse_flags(options, arguments, command="serve", about=__doc__, required=("checkpoint",))
    set_up_jax()
    with exit_on_signals(), exit_with_message():
        limits = Limits(**field_values(options, _LIMITS))
        settings, text, thoughts = picture_settings(options), text_config(options), thought_config(options)
        with bound_socket(options.host, options.port) as listener:
            generator = load_from_flags(options, thoughts)
            name = options.name or _short(generator.reader.model.name)
            server = Server(generator, name, settings, text, limits, key=os.environ.get(KEY, ""))
            _say(server, listener)
            config = uvicorn.Config(
                make_app(server),
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=int(limits.timeout) + 1,
            )
            uvicorn.Server(config).run(sockets=[listener])


def _define(options: flags.FlagValues) -> None:
    define_model(options)
    place = section_of(options, "server")
    flags.DEFINE_string("host", "127.0.0.1", "address to listen on; 0.0.0.0 accepts other machines", **place)
    flags.DEFINE_integer("port", 8000, "port to listen on; 0: any that is free", 0, 65_535, **place)
    flags.DEFINE_string("name", "", "name of the model in requests and replies; default: by its path", **place)
    define_fields(options, Limits(), _LIMITS, "server")
    define_pictures(options, seed=False)
    define_texts(options)
    define_thoughts(options)


def _say(server: Server, listener: socket.socket) -> None:
    host, port, *_ = listener.getsockname()
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {server.name} at http://{shown}:{port}/v1", flush=True)
    if not server.key and not ipaddress.ip_address(host).is_loopback:
        print(f"warning: anyone who reaches {host} can use it; set {KEY} to a key", file=sys.stderr, flush=True)


def _short(name: str) -> str:
    """Returns the name of a model without the hash of its path, for people to type."""
    return name.rpartition(" (")[0].partition(",")[0]


if __name__ == "__main__":
    main(sys.argv[1:])
