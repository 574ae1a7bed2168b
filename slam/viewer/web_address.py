"""Where a page can be reached: host and port, checked before anything is served there."""

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass
from typing import Any

from slam.errors import ViewerError

LOCAL_HOST = "127.0.0.1"
FIRST_PORT = 8080  # where none is asked for, the first free one from here on
MOST_PORTS = 100


@dataclass(frozen=True)
class Address:
    """What is asked for."""

    host: str = LOCAL_HOST
    port: int | None = None  # None: any that is free from FIRST_PORT on; 0: any that the system chooses

    def free_port(self) -> int:
        """The port asked for, or the first one that is free.

        Raises:
            ViewerError: if it is taken or not allowed, or this computer does not have that host.
        """
        ports = range(FIRST_PORT, FIRST_PORT + MOST_PORTS) if self.port is None else [self.port]
        for port in ports:
            if all(can_listen(address, port) for address in self.ip_addresses()):
                return port
        if self.port is None:
            raise ViewerError(f"every port of {self.host} from {ports[0]} to {ports[-1]} is taken; ask for another one")
        raise ViewerError(f"port {self.port} of {self.host} is taken; ask for another one, or for none by number")

    def ip_addresses(self) -> list[str]:
        """The numbers of the host.

        Raises:
            ViewerError: if nobody knows it.
        """
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise ViewerError(f"no page at the host {self.host!r}: {error}; try {LOCAL_HOST}") from error
        return sorted({str(sockaddr[0]) for *_, sockaddr in found})

    @property
    def is_local(self) -> bool:
        """True if only this computer reaches it."""
        return all(ipaddress.ip_address(address.split("%")[0]).is_loopback for address in self.ip_addresses())

    def url(self, port: int) -> str:
        """What to type into a browser."""
        is_any = all(ipaddress.ip_address(a.split("%")[0]).is_unspecified for a in self.ip_addresses())
        host = socket.gethostname() if is_any else self.host
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def where(self, port: int) -> str:
        """The same in words; who works over SSH is told how to reach it."""
        tunnel = f"ssh -L {port}:{self.host}:{port} {socket.gethostname()}"
        is_remote = bool(os.environ.get("SSH_CONNECTION")) and self.is_local
        return self.url(port) + (f" (on your own computer after {tunnel})" if is_remote else "")


def import_page() -> Any:
    """The class of the page; raises ViewerError if viser cannot be loaded."""
    try:
        from slam.viewer.web import WebPage
    except ImportError as error:
        raise ViewerError(f"cannot load viser: {error}; pip install 'v2d-slam[web]'") from error
    return WebPage


def can_listen(ip_address: str, port: int) -> bool:
    """False if somebody else listens there.

    Raises:
        ViewerError: if nobody may, or it is no address of this computer.
    """
    family = socket.AF_INET6 if ":" in ip_address else socket.AF_INET
    try:
        socket.create_server((ip_address, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise ViewerError(f"no page at port {port} of {ip_address}: {os.strerror(error.errno or 0)}") from error
    return True
