"""A Hub on this machine: as much of its protocol as pushing and fetching a repository takes.

The client is the real one; only the server is ours, because tests have no network.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Files = dict[str, bytes]


class LocalHub(ThreadingHTTPServer):
    """Repositories by name, each a list of commits, each all the files there are.

    breaks: so many commits end with the connection, before anything is kept.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, list[Files]] = {}
        self.created: list[dict[str, Any]] = []
        self.breaks = 0

    @property
    def address(self) -> str:
        """What HF_ENDPOINT has to say."""
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, cache: Any) -> dict[str, str]:
        """Environment variables of a process that takes this for the Hub, logged in."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HOME": str(cache),
            "HF_TOKEN": "hf_of_the_tests",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


@contextlib.contextmanager
def local_hub() -> Iterator[LocalHub]:
    """A running server."""
    with LocalHub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def sha_of(files: Files) -> str:
    """40 hex digits that name a commit."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "Authorization" not in self.headers:
            self._say(401, {"error": "Invalid username or password."})
        elif self.path == "/api/validate-yaml":  # the head of the card
            self._say(200, {"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            wanted = json.loads(body)
            self.server.created.append(wanted)
            name = f"{wanted['organization']}/{wanted['name']}"
            self.server.repositories.setdefault(name, [])
            self._say(200, {"url": f"{self.server.address}/{name}"})
        elif match := re.fullmatch("/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path):
            if match[2] == "preupload":
                files = [
                    {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for each in json.loads(body)["files"]
                ]
                self._say(200, {"files": files})
            else:
                self._commit(match[1], body)
        else:
            self._say(404, {"error": self.path})

    def _commit(self, name: str, body: bytes) -> None:
        if self.server.breaks:
            self.server.breaks -= 1
            self.close_connection = True
            return
        commits = self.server.repositories[name]
        files = dict(commits[-1]) if commits else {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        commits.append(files)
        sha = sha_of(files)
        self._say(200, {"success": True, "commitOid": sha, "commitUrl": f"{name}/commit/{sha}"})

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if match := re.fullmatch("/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            files = self._files(match[1], match[3] or "main")
            if files is None:
                return
            if match[2] != "tree":
                self._say(200, {"id": match[1], "sha": sha_of(files), "siblings": []})
            else:
                found = [
                    {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
                    for name, content in files.items()
                ]
                self._say(200, found)
        elif match := re.fullmatch("/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            files = self._files(match[1], match[2])
            if files is not None:
                self._send(files[match[3]], sha_of(files))
        else:
            self._say(404, {"error": path})

    do_HEAD = do_GET

    def _files(self, name: str, revision: str) -> Files | None:
        commits = self.server.repositories.get(name)
        for files in reversed(commits or []):
            if revision in ("main", sha_of(files)):
                return files
        code = "RepoNotFound" if commits is None else "RevisionNotFound"
        self._say(404, {"error": "not found"}, {"X-Error-Code": code})
        return None

    def _say(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value).encode(), headers or {})

    def _send(self, content: bytes, sha: str) -> None:
        self._answer(200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": sha})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quietly."""


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
