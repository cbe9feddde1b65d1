"""By which names this server knows itself: a request for another one is refused.

A browser sends as `Host` what stands in its address bar. A site elsewhere may give its name this
machine's address, and a proxy may pass on what anybody wrote: no link that Rarefind makes may take
a host that it does not know.
"""

import re
import socket
from urllib.parse import urlsplit

import psutil
from fastapi import Request

from app.errors import UnknownHost
from app.settings import Settings, is_loopback

HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?")
# Programs of the same network ask these by any name, and the page that refuses one is to have its
# looks; no answer of theirs holds a link.
FOR_ANY_HOST = ("/api/v1/health", "/api/v1/ready", "/metrics", "/static/")


def refuse_unknown_host(request: Request) -> None:
    """Refuse a request that names a host that is not this server's."""
    named = request.headers.get("host")
    if named is None or request.scope["path"].startswith(FOR_ANY_HOST):
        return
    settings: Settings = request.app.state.settings
    read = HOST.fullmatch(named)
    name = (read[1] or read[2]).lower() if read else ""
    if read and is_known(name, settings):
        return
    # Not even the page that says so may take it.
    headers = [pair for pair in request.scope["headers"] if pair[0] != b"host"]
    request.scope["headers"] = headers
    if not read:
        raise UnknownHost("The request names a host that can't be one.")
    here = f"http://127.0.0.1:{settings.port}"
    raise UnknownHost(
        f"This server does not know itself as “{name}”. If it is to be reached so, start it with "
        f"RAREFIND_PUBLIC_URL=http://{named.lower()} (or https://, as the browser shows it). "
        f"On its own machine it is {here}."
    )


def is_known(name: str, settings: Settings) -> bool:
    """Whether a host is this machine for itself, the address it listens on, or its public name."""
    if is_loopback(name) or name == settings.host.lower():
        return True
    if settings.public_url and name == urlsplit(settings.public_url).hostname:
        return True
    return not is_loopback(settings.host) and name in list_own_names()


def list_own_names() -> set[str]:
    """This machine's name and its addresses, as they are now: a laptop changes networks."""
    name = socket.gethostname().lower()
    addresses = (one.address for many in psutil.net_if_addrs().values() for one in many)
    return {name, f"{name}.local", *(address.split("%")[0].lower() for address in addresses)}
