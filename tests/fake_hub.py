"""A Hugging Face hub on 127.0.0.1, well-behaved or not."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import re
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_REVISION = re.compile(r"/api/models/([^/]+/[^/]+)/revision/[^/?]+")
_TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/[^/?]+")


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
        path = self.path.partition("?")[0]
        answers = {
            _FILE: self._file,
            _REVISION: self._revision,
            _TREE: self._tree,
        }
        found = ((p.fullmatch(path), a) for p, a in answers.items())
        match, answer = next((pair for pair in found if pair[0]), (None, None))
        repository = match[1] if match else ""
        self.server.asked.append((self.command, repository))
        if repository not in self.server.repositories:
            self._refuse("RepoNotFound")
        else:
            answer(repository, match[match.lastindex], send)

    def _refuse(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _file(self, repository, name, send):
        path = _files(self.server.repositories[repository]).get(name)
        if path is None:
            self._refuse("EntryNotFound")
        else:
            self._send(repository, path.read_bytes(), send)

    def _revision(self, repository, _revision, send):
        self._send_json({"id": repository, "sha": COMMIT}, send)

    def _tree(self, repository, _revision, send):
        files = _files(self.server.repositories[repository])
        entries = [
            {
                "type": "file",
                "path": name,
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for name, path in files.items()
        ]
        self._send_json(entries, send)

    def _send_json(self, value, send):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if send:
            self.wfile.write(body)

    def _send(self, repository, content, send):
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


def _files(path):
    """{name in the repository: path}, of a file or of those of a folder."""
    if path.is_file():
        return {path.name: path}
    return {
        file.relative_to(path).as_posix(): file
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@contextlib.contextmanager
def fake_hub(repositories):
    """Serves the files of each repository; yields the server.

    Args:
        repositories: {"organisation/name": path of its file, or of a folder
            of its files}.

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
