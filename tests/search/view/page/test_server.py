"""The server over real sockets, without a browser."""

import gzip
import json
import socket
import threading
from http.client import HTTPConnection

import pytest

from operators.base.errors import RunError
from search.benchmarks.made_up_run import make_run
from search.runs.folder import RunFolder
from search.view.page.server import open_server
from search.view.page.site import Site
from tests.search.view.page.conftest import LONG, SHORT


@pytest.fixture
def serving(results):
    """Starts servers -> a function that asks one: (method, path, headers) -> status, headers, body."""
    servers = []

    def start(site=None, host="127.0.0.1"):
        server = open_server(site or Site(results), host=host, port=0)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)

        def ask(path, method="GET", **headers):
            link = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
            given = {
                "Host": f"127.0.0.1:{server.server_port}",
                **{k.replace("_", "-"): v for k, v in headers.items()},
            }
            link.request(method, path, headers=given)
            answer = link.getresponse()
            body = answer.read()
            link.close()
            return answer.status, dict(answer.getheaders()), body

        ask.server = server
        return ask

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_runs_are_listed_and_shown_with_their_data(serving, value):
    ask = serving()
    rows = {row["name"]: (row["evaluated"], row["readable"]) for row in json.loads(ask("/runs")[2])}
    assert rows == {"long": (LONG, True), "short": (SHORT, True)}
    status, headers, page = ask("/page?run=long")
    assert status == 200
    assert b'data-address="data?run=long"' in page
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, packed = ask("/data?run=long&run=short", Accept_Encoding="gzip")
    data = json.loads(gzip.decompress(packed))
    assert data["runs"] == json.loads(json.dumps(value["runs"]))
    plain = ask("/data?run=long&run=short")
    assert json.loads(plain[2]) == data
    assert ask("/data?run=long&run=short", If_None_Match=headers["ETag"])[0] == 304


def test_data_are_new_when_the_ledger_is(serving, tmp_path):
    make_run(tmp_path / "one", 3)
    ask = serving(Site(tmp_path))
    _, headers, before = ask("/data?run=one")
    ledger = RunFolder(tmp_path / "one").ledger
    text = ledger.read_bytes()
    ledger.unlink()
    ledger.write_bytes(text)  # another file of that name, as of a run that was removed and begun again
    status, again, after = ask("/data?run=one", If_None_Match=headers["ETag"])
    assert status == 200
    assert again["ETag"] != headers["ETag"]
    assert json.loads(after)["runs"] == json.loads(before)["runs"]
    with RunFolder(tmp_path / "one").driving():
        assert json.loads(ask("/data?run=one")[2])["runs"][0]["driven"] is True


def test_it_is_for_reading_only(serving):
    ask = serving()
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        status, headers, _ = ask("/", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, headers, body = ask("/page?run=long", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(ask("/page?run=long")[2])


@pytest.mark.parametrize(
    "path",
    [
        "/page?run=../long",
        "/page?run=%2e%2e",
        "/data?run=nothing",
        "/page",
        "/../../etc/passwd",
        "/assets/page.css",
    ],
)
def test_what_is_no_run_is_not_there(serving, path):
    status, headers, body = serving()(path)
    assert status == 404
    assert headers["Content-Type"].startswith("text/plain")
    assert len(body.splitlines()) == 1


def test_names_of_other_hosts_are_refused(serving):
    """A page of another site may let its own name mean this machine."""
    ask = serving()
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        assert ask("/", Host=host)[0] == 403
    for host in ("localhost", "LOCALHOST:8642", "127.0.0.1", "[::1]:80"):
        assert ask("/", Host=host)[0] == 200


def test_elsewhere_every_request_needs_the_token(serving):
    ask = serving(host="0.0.0.0")  # noqa: S104
    token = ask.server.token
    assert len(token) >= 32
    assert token in ask.server.url
    for path in ("/", "/runs", "/data?run=long", "/plotly.js", "/?token=wrong", "/page?run=long&token="):
        assert ask(path)[0] == 403
    assert ask("/", Cookie="frontrunner=wrong")[0] == 403
    assert ask("/", Cookie='frontrunner="')[0] == 403
    status, headers, _ = ask(f"/page?run=long&token={token}")
    assert (status, headers["Location"]) == (303, "/page?run=long")
    assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert ask("/page?run=long", Cookie=cookie)[0] == 200
    assert ask("/runs", Authorization=f"Bearer {token}")[0] == 200
    _, headers, _ = ask(f"//evil.example/?token={token}")
    assert headers["Location"] == "/evil.example/" or headers["Location"] == "/"


def test_one_run_is_the_whole_site(serving, results):
    ask = serving(Site(results, [RunFolder(results / "short")]))
    assert b'data-address="data?run=short"' in ask("/")[2]
    assert ask("/data?run=long")[0] == 404


def test_a_damaged_ledger_is_one_line(serving, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "ledger.db").write_text("nothing")
    ask = serving(Site(tmp_path))
    (row,) = json.loads(ask("/runs")[2])
    assert row["readable"] is False
    assert "not a ledger" in row["state"]
    status, _, body = ask("/data?run=bad")
    assert status == 404
    assert b"not a ledger of frontrunner" in body


def test_a_port_in_use_is_one_line(results):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(
            RunError, match="cannot be bound: Address already in use; --port 0 takes a free one"
        ):
            open_server(Site(results), host="127.0.0.1", port=taken.getsockname()[1])
    with pytest.raises(RunError, match="cannot be bound"):
        open_server(Site(results), host="no such host", port=0)
