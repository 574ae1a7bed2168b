"""A page talks to browsers that opened it, and to no other page that is open in them."""

import contextlib
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from slam.errors import ViewerError
from slam.viewer.web_address import Address

viser = pytest.importorskip("viser", reason="viser is not installed (the extra web)")

from websockets import Headers  # noqa: E402
from websockets.exceptions import InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from slam.viewer import web  # noqa: E402
from slam.viewer.web_guard import is_ours, refusal  # noqa: E402

PROTOCOLS = [f"viser-v{viser.__version__}"]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a page at 127.0.0.1."""
    server = web.serve(Address(port=0), "test")
    yield server.get_port()
    web.quietly(server.stop)


def first_message(port: int, name: str, origin: str | None) -> bytes | str:
    """What a page gets that connects to the websocket under a name that leads here."""
    way = socket.create_connection(("127.0.0.1", port))
    with way, connect(f"ws://{name}:{port}", sock=way, origin=origin, subprotocols=PROTOCOLS) as connection:
        return connection.recv(timeout=10)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_page_itself_is_let_in_and_so_are_programs(port, name):
    assert first_message(port, name, f"http://{name}:{port}")
    assert first_message(port, name, None)


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("127.0.0.1", "http://stranger.example"),
        ("127.0.0.1", "http://127.0.0.1:1"),  # another program's page
        ("127.0.0.1", "null"),  # a frame without rights, a file
        ("stranger.example", "http://stranger.example:{port}"),  # a name that the stranger made lead here
    ],
)
def test_strangers_are_refused_before_they_can_send_anything(port, name, origin, caplog):
    with pytest.raises(InvalidStatus) as refused:
        first_message(port, name, origin.format(port=port))
    assert refused.value.response.status_code == 403
    assert not [r for r in caplog.records if r.levelno > logging.WARNING]


def test_a_page_under_a_strangers_name_says_what_to_do(port):
    request = urllib.request.Request(f"http://127.0.0.1:{port}", headers={"Host": "stranger.example"})
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(request, timeout=10)
    with contextlib.closing(refused.value) as answer:
        assert b"not served as stranger.example: open it by the number" in answer.read()


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("127.0.0.1:8080", True),
        ("192.0.2.7", True),
        ("[::1]:8080", True),
        ("robot:8080", True),
        ("Robot.local", True),
        ("localhost.", True),
        ("robot.example.org:80", True),  # as it was asked for
        ("robot.example.com", False),
        ("127.0.0.1.example.com", False),
        ("[::1", False),
        (":80", False),
        ("", False),
    ],
)
def test_names_that_no_stranger_can_give_to_this_computer(host, is_known):
    assert is_ours(host, served_as="robot.example.org") == is_known


def test_a_request_names_one_host():
    assert refusal(Headers([("Host", "127.0.0.1"), ("Host", "stranger.example")]), "127.0.0.1")
    assert refusal(Headers(), "127.0.0.1")


def test_a_viser_that_cannot_be_guarded_is_not_used(monkeypatch):
    monkeypatch.setattr(web, "guarded_servers", lambda served_as: contextlib.nullcontext([]))
    with pytest.raises(ViewerError, match="would let any page look at the run"):
        web.serve(Address(port=0), "test")
