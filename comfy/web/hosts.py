"""Who may talk to the server: the Host names that it answers to, and the sites whose pages may send requests.

Two attacks stand behind this. A page of any site can make the browser send requests to 127.0.0.1 (cross-site request
forgery), and a site can let its own name resolve to 127.0.0.1 (DNS rebinding). Decided by headers that a page cannot
set (Host, Origin, Sec-Fetch-*, Referer), never by content type: `curl -d @workflow.json` sends none of them and works.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from comfy.errors import CrossSiteRefused, HostNotAllowed

ANY = "*"


def split_host(header: str) -> tuple[str, str | None]:
    """`Name:8188` -> ("name", "8188"), `[::1]:80` -> ("::1", "80"), `name` -> ("name", None)."""
    text = header.strip().lower()
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        return name, rest[1:] if rest.startswith(":") else None
    name, colon, port = text.partition(":")
    return name.rstrip("."), port if colon else None


def is_ip(name: str) -> bool:
    """Whether `name` is an IP address, written out."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def own_names() -> frozenset[str]:
    """Names of this machine that need no look-up: its host name, the first label of it, and that in .local."""
    name = socket.gethostname().lower().rstrip(".")
    short = name.partition(".")[0]
    return frozenset({name, short, f"{short}.local"} - {"", ".local"})


class HostPolicy:
    """The Host names that the server answers to: IP addresses, localhost, the machine's names, and those allowed by name."""

    def __init__(self, allowed: Iterable[str] = (), own: Iterable[str] | None = None) -> None:
        names = {split_host(name)[0] for name in allowed}
        self._any = ANY in names
        self._names = names | {"localhost"} | set(own_names() if own is None else own)

    def check(self, host: str | None) -> None:
        """Raise HostNotAllowed for another name. Without a Host header it is no browser, and passes."""
        if host is None or self._any:
            return
        name, _ = split_host(host)
        if not (is_ip(name) or name in self._names or name.endswith(".localhost")):
            raise HostNotAllowed(host=host[:255], setting="--allowed-hosts")


def same_place(host: str, origin: str) -> bool:
    """Whether `origin` (scheme://name[:port]) is the server that `host` (name[:port]) names.

    A port counts only when both name one: the default port is left out of either (contract: http-api.md section 1.2).
    `null` and whatever is not an origin are no place.
    """
    try:
        parts = urlsplit(origin)
        name, port = parts.hostname, parts.port
    except ValueError:
        return False
    host_name, host_port = split_host(host)
    if not name or parts.scheme not in ("http", "https") or name.rstrip(".") != host_name:
        return False
    return port is None or host_port is None or str(port) == host_port


class OriginPolicy:
    """Which sites' pages may send requests: the server's own, and the one that --enable-cors-header names (`*`: all)."""

    def __init__(self, cors_origin: str | None = None) -> None:
        self._cors = None if cors_origin is None else cors_origin.strip().rstrip("/").lower()

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise CrossSiteRefused when a page of another site sent the request.

        A browser names the page in Origin, or at least says `cross-site` or `same-site` (another port of this machine)
        in Sec-Fetch-Site. Following a link from elsewhere to this server (a top-level navigation) is allowed.
        """
        if self._cors == ANY:
            return
        origin, host = headers.get("Origin"), headers.get("Host", "")
        if origin is not None:
            if self._allowed(origin):
                return
            if not same_place(host, origin):
                raise CrossSiteRefused(origin=origin[:255], host=host[:255])
        site = headers.get("Sec-Fetch-Site", "none").lower()
        if site not in ("cross-site", "same-site"):
            return
        if method in ("GET", "HEAD") and origin is None and (_is_navigation(headers) or self._allowed(_referer(headers))):
            return
        raise CrossSiteRefused(sec_fetch_site=site, host=host[:255])

    def _allowed(self, origin: str) -> bool:
        return self._cors is not None and origin.strip().rstrip("/").lower() == self._cors


def _is_navigation(headers: Mapping[str, str]) -> bool:
    return headers.get("Sec-Fetch-Mode", "").lower() == "navigate" and headers.get("Sec-Fetch-Dest", "").lower() == "document"


def _referer(headers: Mapping[str, str]) -> str:
    parts = urlsplit_or_none(headers.get("Referer", ""))
    return "" if parts is None else f"{parts[0]}://{parts[1]}"


def urlsplit_or_none(url: str) -> tuple[str, str] | None:
    """(scheme, network location) of a URL, None when it cannot be split."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.scheme, parts.netloc
