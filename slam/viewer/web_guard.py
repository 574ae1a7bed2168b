"""Who may talk to a page: browsers that opened it, and no other page that is open in them.

Any page may connect to a websocket of the computer that its browser runs on; the browser only tells its `Origin`. A
stranger's name may also lead to this computer (DNS rebinding), which the `Host` shows. Viser asks for neither.

Reference: RFC 6455, sec. 10.2.
"""

import http
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import websockets.asyncio.server
from websockets import Headers
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from slam.errors import warn_once

LOCAL_SUFFIXES = (".local", ".localhost")  # never answered by name servers of the internet

_patching = threading.Lock()


def refusal(headers: Headers, served_as: str) -> str | None:
    """Why a request is refused; None if it may pass.

    Args:
        served_as: the host that the user asked for, by number or name.
    """
    hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
    if len(hosts) != 1 or not is_ours(hosts[0], served_as):
        name = ", ".join(hosts) or "nothing"
        return f"the page is not served as {name}: open it by the number of its computer, or give that name as its host"
    if any(urlsplit(origin).netloc.lower() != hosts[0].lower() for origin in origins):  # programs send none
        return f"a page of {', '.join(origins)} wanted to look at the run"
    return None


def is_ours(host: str, served_as: str) -> bool:
    """True of a number, and of a name that no stranger can give to this computer.

    Args:
        host: as in a `Host` header, with or without a port.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:  # half a bracket
        return False
    known = {served_as.lower(), socket.gethostname().lower()}
    return bool(name) and ("." not in name or name in known or name.endswith(LOCAL_SUFFIXES) or is_number(name))


def is_number(name: str) -> bool:
    """True of an IP address."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


@contextmanager
def guarded_servers(served_as: str) -> Iterator[list[int]]:
    """Servers that are started within the block refuse strangers; the list holds the native ids of their threads.

    Viser starts its server with a fixed `process_request` and no `origins`: what starts servers is replaced meanwhile.
    """
    start = websockets.asyncio.server.serve
    guarded: list[int] = []

    def start_guarded(*arguments: Any, process_request: Any = None, **options: Any) -> Any:
        guarded.append(threading.get_native_id())
        return start(*arguments, process_request=checked(process_request, served_as), **options)

    with _patching:
        setattr(websockets.asyncio.server, "serve", start_guarded)  # noqa: B010, mypy knows it as a class
        try:
            yield guarded
        finally:
            setattr(websockets.asyncio.server, "serve", start)  # noqa: B010


def checked(
    answer: Callable[[ServerConnection, Request], Response | None], served_as: str
) -> Callable[[ServerConnection, Request], Response | None]:
    """What answers requests, for those that are not refused."""

    def answer_checked(connection: ServerConnection, request: Request) -> Response | None:
        reason = refusal(request.headers, served_as)
        if reason is None:
            return answer(connection, request)
        warn_once(f"refused: {reason}")
        return connection.respond(http.HTTPStatus.FORBIDDEN, f"{reason}\n")

    return answer_checked
