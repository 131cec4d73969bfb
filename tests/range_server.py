"""A web server for tests: serves a folder with range requests and counts what it sends."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Traffic:
    """What a server has done. It refuses everything once `gone` is true."""

    url: str
    sent: int = 0  # bytes of files
    requests: list[str] = field(default_factory=list)
    gone: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Count from zero again."""
        with self.lock:
            self.sent, self.requests = 0, []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, folder: Path, traffic: Traffic, *args: object) -> None:
        self._folder, self._traffic = folder, traffic
        super().__init__(*args)  # type: ignore[arg-type]

    def log_message(self, *args: object) -> None:
        """Nothing: the output belongs to the test."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self._folder / self.path.partition("?")[0].lstrip("/")
        with self._traffic.lock:
            self._traffic.requests.append(f"{self.command} {self.path}")
        if self._traffic.gone or not path.is_file():
            self.send_response(410 if self._traffic.gone else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2]) if asked and asked[2] else size - 1, size - 1)
        if first > last:
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if body:
            with path.open("rb") as file:
                file.seek(first)
                data = file.read(last - first + 1)
            with self._traffic.lock:
                self._traffic.sent += len(data)
            self.wfile.write(data)


@contextmanager
def serve(folder: Path) -> Iterator[Traffic]:
    """Serve the files of `folder` on this machine."""
    traffic = Traffic("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, folder, traffic))
    server.daemon_threads = True
    traffic.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield traffic
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
