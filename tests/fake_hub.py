"""A Hugging Face hub on 127.0.0.1, well-behaved or not."""

import contextlib
import hashlib
import http.server
import pathlib
import re
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_URL = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class _Handler(http.server.BaseHTTPRequestHandler):
    """Repositories named bad/... misbehave as their names say."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(send=False)

    def do_GET(self):
        self._answer(send=True)

    def _answer(self, send):
        match = _URL.fullmatch(self.path)
        repository, _, name = match.groups() if match else ("", "", "")
        self.server.asked.append((self.command, repository))
        if repository not in self.server.repositories:
            self._refuse("RepoNotFound")
        elif name != self.server.repositories[repository].name:
            self._refuse("EntryNotFound")
        else:
            self._send(repository, send)

    def _refuse(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, repository, send):
        content = self.server.repositories[repository].read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        start = 0
        if match := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
        body = content[start:]
        if repository == "bad/checksum":
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-ETag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send and repository == "bad/interrupted":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif send:
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)


@contextlib.contextmanager
def fake_hub(repositories):
    """Serves one file from each repository; yields the server.

    Args:
        repositories: {"organisation/name": path of its file}.

    `server.url` is for HF_ENDPOINT, `server.asked` the requests so far.
    """
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.repositories = {
        name: pathlib.Path(path) for name, path in repositories.items()
    }
    server.asked = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
