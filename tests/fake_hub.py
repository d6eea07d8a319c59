"""A hub of models on the loopback: what `huggingface_hub` asks of the real one to push and to fetch."""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_testing"
NO_REVISION = {"error": "Invalid rev id"}


@dataclass
class Hub:
    """address: HF_ENDPOINT.  repos: files by name of the repository, the same on every branch.
    private: of each.  branches: of each, beside main.  commits: how many there were."""

    address: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    branches: dict[str, set[str]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0

    def sha(self, repo: str) -> str:
        """Of the newest commit."""
        told = repr(sorted(self.repos[repo].items())).encode()
        return hashlib.sha1(told).hexdigest()

    def has(self, repo: str, revision: str) -> bool:
        return revision in {"main", self.sha(repo), *self.branches.get(repo, ())}


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body are two packets

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is said."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                return self.say(401, {"error": "Invalid username or password."})
            return self.say(*post(hub, urlsplit(self.path).path, body))

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            hub.large[hashlib.sha256(data).hexdigest()] = data
            self.say(200, {})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
                repo, _, name = found.groups()
                data = hub.repos.get(repo, {}).get(name)
                if data is None:
                    return self.say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
                about = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": hub.sha(repo)}
                return self.send(200, data, "application/octet-stream", about)
            return self.say(*get(hub, path))

        def say(self, status: int, value: Any, more: dict[str, str] | None = None) -> None:
            if status == 404 and more is None:
                code = "RevisionNotFound" if value is NO_REVISION else "RepoNotFound"
                more = {"X-Error-Code": code}
            self.send(status, json.dumps(value).encode(), "application/json", more or {})

        def send(self, status: int, data: bytes, kind: str, more: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


def get(hub: Hub, path: str) -> tuple[int, Any]:
    found = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/(revision|tree)/([^/]+))?", path)
    if found is None or found[1] not in hub.repos:
        return 404, {"error": "Repository not found"}
    repo, kind, revision = found.groups()
    if revision is not None and not hub.has(repo, revision):
        return 404, NO_REVISION
    files = hub.repos[repo]
    if kind == "tree":
        about = {n: (len(d), hashlib.sha1(d).hexdigest()) for n, d in files.items()}
        return 200, [
            {"type": "file", "path": n, "size": size, "oid": oid} for n, (size, oid) in about.items()
        ]
    siblings = [{"rfilename": name} for name in files]
    return 200, {"id": repo, "modelId": repo, "sha": hub.sha(repo), "siblings": siblings, "tags": []}


def post(hub: Hub, path: str, body: bytes) -> tuple[int, Any]:
    if path == "/api/repos/create":
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in hub.repos:
            return 409, {"error": "You already created this model repo", "url": f"{hub.address}/{repo}"}
        hub.repos[repo] = {".gitattributes": b"*.onnx filter=lfs\n"}
        hub.private[repo] = bool(asked.get("private")) or asked.get("visibility") == "private"
        return 200, {"url": f"{hub.address}/{repo}"}
    if path == "/api/validate-yaml":
        front = json.loads(body)["content"].split("---")[1]
        wrong = [] if isinstance(yaml.safe_load(front), dict) else [{"message": "no YAML"}]
        return (400 if wrong else 200), {"errors": wrong, "warnings": []}
    if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/branch/(.+)", path):
        hub.branches.setdefault(found[1], set()).add(unquote(found[2]))
        return 200, {}
    found = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(?:preupload|commit)/(.+)", path)
    if found and not hub.has(found[1], unquote(found[2])):
        return 404, NO_REVISION
    if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/preupload/.+", path):
        files = [
            {"path": f["path"], "uploadMode": mode(f["path"]), "shouldIgnore": False}
            for f in json.loads(body)["files"]
        ]
        return 200, {"files": files}
    if path.endswith(".git/info/lfs/objects/batch"):
        objects = [
            {**o, "actions": {"upload": {"href": f"{hub.address}/large/{o['oid']}"}}}
            for o in json.loads(body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}
    if found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/commit/.+", path):
        files = hub.repos[found[1]]
        for line in body.splitlines():
            change = json.loads(line)
            key, value = change["key"], change["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = hub.large[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        hub.commits += 1
        sha = hub.sha(found[1])
        return 200, {"commitUrl": f"{hub.address}/{found[1]}/commit/{sha}", "commitOid": sha}
    return 404, {"error": f"nothing at {path}"}


def mode(path: str) -> str:
    """How the hub wants a file: graphs are large."""
    return "lfs" if path.endswith(".onnx") else "regular"
