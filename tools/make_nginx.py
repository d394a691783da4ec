"""Write the nginx site for a machine: `python tools/make_nginx.py --gpus 8 > nginx.conf`, or `--to FOLDER` for both files.

The site file holds map, limit_req_zone and server blocks only, so that a copy in sites-available is enough. Lane i has
the port FIRST + i; a port that is taken by the backend or by the path variant is left out. Standard library only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SITE = "nginx.conf"
STANDALONE = "docs/nginx-standalone.conf"
#: who may ask for what tells about the machine; both with and without /api
GUARDED = "metrics|internal|debug|weights"
PRIVATE = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1", "fc00::/7")


@dataclass(frozen=True)
class Site:
    """What a site depends on."""

    gpus: int = 4
    backend: str = "127.0.0.1:8188"
    first_port: int = 8181
    path_port: int = 8180
    listen: str = ""  #: address to bind, empty for all
    rate: int = 10  #: prompts per second and client address
    burst: int = 20

    @property
    def ports(self) -> list[int]:
        """The port of each lane. Raises ValueError when they do not fit."""
        taken = {self.path_port, int(self.backend.rpartition(":")[2])}
        free = [port for port in range(self.first_port, self.first_port + self.gpus + 2) if port not in taken][: self.gpus]
        if free[-1] > 65535:
            raise ValueError(f"{self.gpus} ports from {self.first_port} on end at {free[-1]}; the last there is is 65535")
        return free


HEAD = """\
# {n} GPUs behind nginx: port {ports} for GPU {gpus}; port {path_port} for all of them by path, /gpu0/ to /gpu{last}/.
# Made by tools/make_nginx.py, which makes it for other numbers of GPUs and other ports too:
#
#   python3 tools/make_nginx.py --gpus 8 > nginx.conf
#
# Install:  sudo cp nginx.conf /etc/nginx/sites-available/comfyui-multi-gpu
#           sudo ln -s /etc/nginx/sites-available/comfyui-multi-gpu /etc/nginx/sites-enabled/
#           sudo nginx -t && sudo systemctl reload nginx
#
# These ports listen to the network and the server trusts whoever reaches it: set a password (auth_basic below) or let a
# firewall decide who comes in. A host name of your own must be told to the server: --allowed-hosts gpu.example.com.

# An upgrade to a websocket is passed on; any other connection is closed after its answer.
map $http_upgrade $comfy_connection {{
    default upgrade;
    ''      close;
}}

# What counts against the limit: a prompt, by its client's address. An empty key counts nothing: a page of the front end
# alone makes 280 requests.
map $request_method $comfy_prompt_client {{
    default '';
    POST    $binary_remote_addr;
}}
limit_req_zone $comfy_prompt_client zone=comfy_prompts:10m rate={rate}r/s;

# The path variant: which GPU a path names, and the path without that, byte by byte as the client wrote it (%2F stays).
map $uri $comfy_gpu {{
    default           auto;
    ~^/gpu({any_gpu})/  $1;
}}
map $request_uri $comfy_path {{
    default              $request_uri;
    ~^/gpu(?:{any_gpu})(/.*)$  $1;
}}
"""

SERVER = """
# {title}
server {{
    listen {listen};
    # auth_basic "ComfyUI"; auth_basic_user_file /etc/nginx/comfyui.htpasswd;

    client_max_body_size 100m;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_read_timeout 600s;
    proxy_send_timeout 600s;

    # Replaces whatever the client sent under this name.
    proxy_set_header X-TARGET-GPU {gpu};
    # The server compares Host with Origin, port included, to keep other sites' pages out.
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $comfy_connection;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Forwarded-Proto $scheme;

    # nginx's own refusals, in the server's words; the server's answers pass untouched.
    error_page 413 @too_large;
    error_page 429 @rate_limited;
    error_page 502 504 @away;
{redirects}
    location / {{
        proxy_pass {target};
    }}
    location ~ ^{prefix}(?:/api)?/prompt$ {{
        limit_req zone=comfy_prompts burst={burst} nodelay;
        limit_req_status 429;
        proxy_pass {target};
    }}
    location ~ ^{prefix}(?:/api)?/(?:{guarded})(?:/|$) {{
{allow}
        deny all;
        proxy_pass {target};
    }}
    location @too_large {{
        default_type application/json;
        return 413 '{too_large}';
    }}
    location @rate_limited {{
        default_type application/json;
        add_header Retry-After 1 always;
        return 429 '{rate_limited}';
    }}
    location @away {{
        default_type application/json;
        add_header Retry-After 5 always;
        return 502 '{away}';
    }}
}}
"""

REDIRECTS = """
    absolute_redirect off;
    location ~ ^/gpu(?:{any_gpu})$ {{
        return 301 $uri/$is_args$args;
    }}"""

ALONE = """\
# Runs the site by itself, without root: nginx -p FOLDER -c THIS_FILE, with its full path. Log, pid and buffers go to FOLDER.
worker_processes 2;
pid nginx.pid;
error_log error.log;
events { worker_connections 1024; }
http {
    access_log access.log; client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include ../nginx.conf;
}
"""


def refusal(kind: str, message: str, details: str = "") -> str:
    """A body in the shape of the server's own errors; no quote of nginx's kind in it."""
    return f'{{"error": {{"type": "{kind}", "message": "{message}", "details": "{details}", "extra_info": {{}}}}, "node_errors": {{}}}}'


def server_block(site: Site, title: str, port: int, gpu: str, by_path: bool = False) -> str:
    """One `server { … }`."""
    any_gpu = "|".join(map(str, range(site.gpus)))
    return SERVER.format(
        title=title,
        listen=f"{site.listen}:{port}" if site.listen else port,
        gpu=gpu,
        redirects=REDIRECTS.format(any_gpu=any_gpu) if by_path else "",
        target=f"http://{site.backend}{'$comfy_path' if by_path else ''}",
        prefix=f"(?:/gpu(?:{any_gpu}))?" if by_path else "",
        guarded=GUARDED,
        burst=site.burst,
        allow="\n".join(f"        allow {network};" for network in PRIVATE),
        too_large=refusal("body_too_large", "The body of the request is over the limit.", "100 MiB"),
        rate_limited=refusal("rate_limited", "Too many prompts from this address.", f"{site.rate} per second, {site.burst} at once"),
        away=refusal("server_unavailable", "The server behind the proxy does not answer.", "It may be starting."),
    )


def site_text(site: Site) -> str:
    """The site file. Raises ValueError when the ports do not fit."""
    ports = site.ports
    head = HEAD.format(
        n=site.gpus,
        ports=", ".join(map(str, ports)),
        gpus=", ".join(map(str, range(site.gpus))),
        path_port=site.path_port,
        last=site.gpus - 1,
        rate=site.rate,
        any_gpu="|".join(map(str, range(site.gpus))),
    )
    by_port = [server_block(site, f"GPU {gpu}", port, str(gpu)) for gpu, port in enumerate(ports)]
    title = "Every GPU by path; a path without /gpuN/ goes where the server's router sends it"
    return head + "".join(by_port) + server_block(site, title, site.path_port, "$comfy_gpu", by_path=True)


def write(site: Site, folder: Path) -> None:
    """Both files under `folder`."""
    for name, text in ((SITE, site_text(site)), (STANDALONE, ALONE)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most} is needed, not {text}")
        return int(text)

    return parse


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (host and colon and all(char.isalnum() or char in ".-_:[]" for char in host)):
        raise argparse.ArgumentTypeError(f"HOST:PORT is needed, not {text}")
    _number(1, 65535)(port)
    return text


def main(argv: Sequence[str]) -> int:
    default = Site()
    parser = argparse.ArgumentParser(description="Write the nginx site.")
    port = _number(1, 65535)
    parser.add_argument("--gpus", type=_number(1, 64), default=default.gpus, metavar="N", help="lanes (4)")
    parser.add_argument("--backend", type=_address, default=default.backend, metavar="HOST:PORT", help="the server (127.0.0.1:8188)")
    parser.add_argument("--first-port", type=port, default=default.first_port, metavar="P", help="port of GPU 0 (8181)")
    parser.add_argument("--path-port", type=port, default=default.path_port, metavar="P", help="port of the variant by path (8180)")
    parser.add_argument("--listen", default="", metavar="IP", help="address to listen on (all)")
    parser.add_argument("--rate", type=_number(1, 10_000), default=default.rate, metavar="N", help="prompts per second and client (10)")
    parser.add_argument("--burst", type=_number(1, 10_000), default=default.burst, metavar="N", help="prompts at once (20)")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=f"write {SITE} and {STANDALONE} there instead of printing the site")
    given = vars(parser.parse_args(list(argv)))
    folder = given.pop("to")
    site = Site(**given)
    try:
        text = site_text(site)
    except ValueError as error:
        parser.error(str(error))
    if folder is None:
        sys.stdout.write(text)
    else:
        write(site, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
