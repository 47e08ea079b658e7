"""A stand-in for the EC2 metadata service: files below a folder, version 1 or 2.

Run as a program: ADDRESS FOLDER.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "0123456789-token"


class Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_PUT(self) -> None:
        known = self.path == "/latest/api/token" and not (self.folder / "imdsv1").exists()
        good = known and self.headers["X-aws-ec2-metadata-token-ttl-seconds"] == "21600"
        self._answer(200 if good else 404, TOKEN.encode() if good else b"")

    def do_GET(self) -> None:
        wants_token = not (self.folder / "imdsv1").exists()
        path = self.folder / self.path.lstrip("/")
        path = path / "index" if path.is_dir() else path
        if wants_token and self.headers["X-aws-ec2-metadata-token"] != TOKEN:
            self._answer(401, b"")
        elif path.is_file():
            self._answer(200, path.read_bytes())
        else:
            self._answer(404, b"no such thing")

    def _answer(self, status: int, body: bytes) -> None:
        with (self.folder / "requests.log").open("a") as log:
            log.write(f"{self.command} {self.path} {status}\n")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Handler.folder = Path(sys.argv[2])
    ThreadingHTTPServer((sys.argv[1], 80), Handler).serve_forever()
