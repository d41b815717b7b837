"""A proxy with real sockets that stands before a store and lets things go wrong."""

import contextlib
import dataclasses
import http.client
import http.server
import re
import socket
import threading
import time
from collections.abc import Iterator

# Method and path of requests that bring a dataset's files to GCS or S3.
UPLOAD = ("POST|PUT", r"/upload/|\?partNumber|part-")


@dataclasses.dataclass
class Fault:
    """What goes wrong, and with which requests.

    Attributes:
      kind: a status to answer with; `slow`: the answer comes after `seconds`; `cut answer`, `cut
        request`: the connection ends in the middle of the body.
      method: of the requests.
      path: pattern of their path.
      times: of every `every` such requests the first ones, but for `after` in the beginning.
      seconds: of a slow answer.
    """

    kind: int | str
    method: str
    path: str
    times: int = 1
    every: int = 1
    after: int = 0
    seconds: float = 0.3
    seen: int = 0
    struck: int = 0

    def strikes(self, method: str, path: str) -> bool:
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        number = self.seen - self.after
        self.seen += 1
        strikes = number >= 0 and number % self.every < self.times
        self.struck += strikes
        return strikes


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on to `upstream`, `HOST:PORT`, but for those that a fault strikes."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            return next((each for each in self.faults if each.strikes(method, path)), None)

    def handle_error(self, request, client_address):
        """Connections that clients end are what this is about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        """What http.server calls: do_GET, do_POST and so on."""
        if name.startswith("do_"):
            return self._pass_on
        raise AttributeError(name)

    def _pass_on(self) -> None:
        fault = self.server.fault(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if fault and fault.kind == "cut request":
            self.rfile.read(length // 2)
            self._cut()
            return
        body = self._chunks() if self.headers.get("Transfer-Encoding") else self.rfile.read(length)
        if fault and isinstance(fault.kind, int):
            self._answer(fault.kind, [("Content-Type", "text/plain")], b"as it was told to")
            return
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        upstream = http.client.HTTPConnection(self.server.upstream)
        headers = dict(self.headers.items())
        headers.pop("Transfer-Encoding", None)
        headers["Content-Length"] = str(len(body))
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        kept = [
            (name, value.replace(self.server.upstream, self.server.address))
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection", "content-length")
        ]
        if self.command == "HEAD":
            content = b""
            kept.append(("Content-Length", answer.getheader("Content-Length") or "0"))
        upstream.close()
        if fault and fault.kind == "cut answer":
            self._answer(answer.status, kept, content, sent=len(content) // 2)
            self._cut()
        else:
            self._answer(answer.status, kept, content)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _answer(self, status, headers, content: bytes, sent: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])

    def _cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    server = Proxy(upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
