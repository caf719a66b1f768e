"""The page over HTTP, for reading only.

It answers this machine alone, unless it is bound elsewhere; then every request needs a token.
"""

import gzip
import hmac
import ipaddress
import secrets
import socket
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

from operators.base.errors import FrontrunnerError, RunError, flat
from search.view.page import document
from search.view.page.site import Site

_COOKIE = "frontrunner"
_IDLE_S = 30  # after which a connection that says nothing is closed
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_HTML, _TEXT, _JSON = "text/html; charset=utf-8", "text/plain; charset=utf-8", "application/json"
_SCRIPT = "text/javascript; charset=utf-8"
_KEPT = {"Cache-Control": "private, max-age=86400, immutable"}  # its address names its version


class Server(ThreadingHTTPServer):
    """Opened by `open_server`.

    site: what it answers.
    token: that every request needs; empty where it answers this machine alone.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, site: Site) -> None:
        self.site = site
        self.token = "" if _is_loopback(host) else secrets.token_urlsafe(24)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self.shown_host = f"[{host}]" if ":" in host else host

    @property
    def url(self) -> str:
        """The address to open in a browser, with the token where one is needed."""
        everywhere = self.shown_host in ("0.0.0.0", "[::]")  # noqa: S104 - compared, not bound
        host = socket.gethostname() if everywhere else self.shown_host
        query = f"?{urlencode({'token': self.token})}" if self.token else ""
        return f"http://{host}:{self.server_port}/{query}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing where a browser went away. Anything else is a defect, which is reported."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def open_server(site: Site, *, host: str, port: int) -> Server:
    """A server that listens; `serve_forever` answers. Raises RunError.

    host: name or address of the interface.
    port: 0 takes a free one.
    """
    try:
        return Server(host, port, site)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(
            f"--host {host} --port {port}: cannot be bound: {reason}; --port 0 takes a free one"
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "frontrunner", ""
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    _own_names: ClassVar[tuple[str, ...]] = ("localhost", "127.0.0.1", "[::1]")

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query, keep_blank_values=True)
        if not self._may(query):
            return
        site, names = self.server.site, query.get("run", [])
        try:
            match address.path:
                case "/":
                    self._send(HTTPStatus.OK, _HTML, site.home())
                case "/page":
                    self._send(HTTPStatus.OK, _HTML, site.page(names))
                case "/data":
                    self._data(names)
                case "/runs":
                    self._send(HTTPStatus.OK, _JSON, site.runs())
                case "/plotly.js":
                    self._send(HTTPStatus.OK, _SCRIPT, document.plotly().encode(), _KEPT)
                case _:
                    self._refuse(HTTPStatus.NOT_FOUND, "nothing there")
        except RunError as error:
            self._refuse(HTTPStatus.NOT_FOUND, flat(error))
        except (FrontrunnerError, OSError) as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, flat(error))

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        self.close_connection = True  # its body is not read
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "for reading only", {"Allow": "GET, HEAD"})

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_POST  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing of each request."""

    def _may(self, query: Mapping[str, list[str]]) -> bool:
        """Whether the request may be answered; where not, it is refused or sent on."""
        if not self.server.token:
            name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
            if name.lower() in self._own_names:
                return True
            # A page of another site may have let its name mean this machine.
            self._refuse(HTTPStatus.FORBIDDEN, f"expected the host localhost or 127.0.0.1, got {name!r}")
            return False
        given = query.get("token", [""])[-1]
        if given and self._right(given):
            kept = [(key, value) for key, values in query.items() if key != "token" for value in values]
            path = urlsplit(self.path).path
            place = f"/{path.lstrip('/')}" + (f"?{urlencode(kept)}" if kept else "")
            cookie = f"{_COOKIE}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            self._send(HTTPStatus.SEE_OTHER, _TEXT, b"", {"Location": place, "Set-Cookie": cookie})
            return False
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._right(self._cookie()) or self._right(bearer):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "expected the token that `frontrunner serve` printed")
        return False

    def _cookie(self) -> str:
        try:
            kept = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            return ""
        return kept[_COOKIE].value if _COOKIE in kept else ""

    def _right(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(errors="replace"), self.server.token.encode())

    def _data(self, names: list[str]) -> None:
        known = self.headers.get("If-None-Match")
        answer = self.server.site.data(names, known=known.strip('"') if known else None)
        headers = {"ETag": f'"{answer.tag}"', "X-Next-Ms": str(answer.next_ms)}
        if known == headers["ETag"]:
            self._send(HTTPStatus.NOT_MODIFIED, _JSON, b"", headers)
        elif "gzip" in self.headers.get("Accept-Encoding", ""):
            self._send(HTTPStatus.OK, _JSON, answer.packed, {**headers, "Content-Encoding": "gzip"})
        else:
            self._send(HTTPStatus.OK, _JSON, gzip.decompress(answer.packed), headers)

    def _refuse(self, status: HTTPStatus, reason: str, headers: Mapping[str, str] = {}) -> None:
        self._send(status, _TEXT, f"{reason}\n".encode(), headers)

    def _send(self, status: HTTPStatus, kind: str, body: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        policy = {"Content-Security-Policy": "frame-ancestors 'none'"}  # the rest of it stands in the page
        length = {} if status is HTTPStatus.NOT_MODIFIED else {"Content-Length": str(len(body))}
        for name, value in {"Content-Type": kind, **length, **_HEADERS, **policy, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
