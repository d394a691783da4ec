"""Binding the addresses of --listen, and the lines that tell where the server is."""

from __future__ import annotations

import errno
import logging
import ssl

from aiohttp import web

from comfy.config import Config
from comfy.errors import ConfigError

log = logging.getLogger(__name__)

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def tls_context(config: Config) -> ssl.SSLContext | None:
    """The TLS set-up when both files are given, else None. Raises ConfigError for files that do not load."""
    if not (config.tls_keyfile and config.tls_certfile):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_certfile, config.tls_keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--tls-certfile and --tls-keyfile do not load: {error}") from error
    return context


async def bind(runner: web.AppRunner, config: Config) -> int:
    """Listen on every address, all on one port, and return it: with port 0 one that is free.

    A wildcard IPv6 address is left out on a machine without IPv6. Raises ConfigError when an address cannot be bound.
    """
    context, port, bound = tls_context(config), config.port, 0
    for address in config.listen:
        try:
            await web.TCPSite(runner, address, port, ssl_context=context).start()
        except OSError as error:
            if error.errno in _NO_IPV6 and address == "::" and len(config.listen) > 1:
                log.warning("this machine has no IPv6: not listening on %s", address)
                continue
            raise ConfigError(_reason(error, address, port)) from error
        bound += 1
        if port == 0:
            port = runner.addresses[0][1]
    if not bound:
        raise ConfigError("--listen names no address of this machine.", listen=list(config.listen))
    return port


def _reason(error: OSError, address: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {address} is taken by another program: stop it, or give another --port."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Port {port} on {address} needs more rights: ports under 1024 belong to the system. Give another --port."
    return f"Cannot listen on {address}, port {port}: {error.strerror or error}."


def urls(config: Config, port: int) -> list[str]:
    """The URL of each address, as it was given."""
    scheme = "https" if config.tls_keyfile and config.tls_certfile else "http"
    return [f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}" for address in config.listen]


def ready_lines(config: Config, port: int) -> list[str]:
    """A line per address with the URL of the front end."""
    return ["Starting server", *(f"To see the GUI go to: {url}" for url in urls(config, port))]


def browser_url(config: Config, port: int) -> str:
    """The first URL as a browser on this machine can open it: a wildcard address is no place to go to."""
    return urls(config, port)[0].replace("://0.0.0.0:", "://127.0.0.1:").replace("://[::]:", "://[::1]:")
