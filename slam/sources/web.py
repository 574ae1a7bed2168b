"""Addresses of the web: http and https alone, wherever a server sends us."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from slam.errors import SourceError

USER_AGENT = {"User-Agent": "v2d-slam", "Accept-Encoding": "identity"}
FAILURES = (OSError, HTTPException, ValueError)  # of `opened`, and of reading its answer


def is_web(url: str) -> bool:
    """True of an address that `opened` takes."""
    return url.lower().startswith(("http://", "https://"))


def opened(url: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> Any:
    """The answer of a server, its data not read yet; `user:password@` of the address is for a server that asks.

    Raises:
        SourceError: if the server sends us to anything but http and https.
        OSError, HTTPException, ValueError: whatever else goes wrong; `words` says it.
    """
    url, passwords = _without_user(url)
    opener = urllib.request.OpenerDirector()  # not build_opener: that also opens ftp, files and data in the address
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _WebRedirects(),
        *passwords,
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={**USER_AGENT, **(headers or {})})
    return opener.open(request, timeout=timeout_s)


def _without_user(url: str) -> tuple[str, list[urllib.request.BaseHandler]]:
    """An address without `user:password@`, and what answers a server that asks for them."""
    parts = urlsplit(url)
    if parts.username is None:
        return url, []
    known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    known.add_password(None, url, unquote(parts.username), unquote(parts.password or ""))
    return url, [urllib.request.HTTPDigestAuthHandler(known), urllib.request.HTTPBasicAuthHandler(known)]


def words(error: Exception) -> str:
    """What went wrong with an address, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server says {error.code} {error.reason}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect within the web."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """The request of the new address; raises SourceError if that is not of the web."""
        is_downgrade = req.full_url.lower().startswith("https://") and not newurl.lower().startswith("https://")
        if not is_web(newurl) or is_downgrade:
            raise SourceError(f"{req.full_url} sends us on to {newurl}, which is not followed: it is not {_kinds(req)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _kinds(request: urllib.request.Request) -> str:
    return "https" if request.full_url.lower().startswith("https://") else "http or https"
