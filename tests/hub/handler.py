"""The endpoints of the loopback Hub, one function each."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub.server import ORGANIZATION, USER, Fault, Hub
from tests.hub.store import Entry, Repository, StaleParent, git_oid

NAME = r"(?P<name>[^/]+/[^/]+)"
LFS_SUFFIXES = (".safetensors", ".bin", ".pt")


class Refused(Exception):
    """An answer that is an error of the Hub."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    """Finds the endpoint, meets the fault that is due there, and answers."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self._chunked() if self.headers.get("Transfer-Encoding") else self.rfile.read(length)
        with self.hub.lock:
            said = {k: v for k, v in self.headers.items() if k.lower() != "authorization"}
            self.hub.headers.append(f"{self.command} {self.path} {json.dumps(said)}")
        for methods, pattern, name, function in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in methods:
                endpoint = f"{name}-head" if name == "resolve" and self.command == "HEAD" else name
                with self.hub.lock:
                    self.hub.asked.append(endpoint)
                return self._answer(function, found.groupdict(), self.hub.fault(endpoint))
        return self._send(404, {"error": f"no endpoint {path}"})

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, function: Callable[..., Any], arguments: dict[str, str], fault: Fault | None) -> None:
        self.fault = fault
        kind = fault.kind if fault else ""
        if kind in ("429", "503", "500", "403"):
            return self._send(int(kind), {"error": "as asked by the test"})
        if kind == "stale parent":
            return self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
        if kind == "drop":
            return self._drop()
        if kind == "slow" and fault is not None:
            time.sleep(fault.seconds)
        try:
            status, content, headers = function(self, **arguments)
        except Refused as refusal:
            extra = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            return self._send(refusal.status, {"error": refusal.message}, extra)
        if kind == "late" and fault is not None:
            time.sleep(fault.seconds)
        if kind == "answer lost":
            return self._drop()
        if kind == "wrong hash":
            content, headers = _spoiled(content, headers)
        return self._send(status, content, headers, cut=kind == "truncated")

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(
        self, status: int, content: Any, headers: dict[str, str] | None = None, *, cut: bool = False
    ) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", (headers or {}).get("Content-Length") or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._drop()

    def role(self) -> str:
        """write or read; refuses without a known token."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in self.hub.tokens:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def repository(self, name: str, *, write: bool = False) -> Repository:
        """A repository that the caller may see."""
        found = self.hub.store.repositories.get(name)
        if write and self.role() != "write":
            raise Refused(403, "", "this token may not write")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if found is None or (found.private and token not in self.hub.tokens):
            raise Refused(404 if token else 401, "RepoNotFound", "Repository not found")
        return found


def _spoiled(content: Any, headers: dict[str, str]) -> tuple[Any, dict[str, str]]:
    """The same answer with one thing in it changed: a byte of a file, or a hash of a listing."""
    if isinstance(content, bytes) and content:
        return bytes([content[0] ^ 1]) + content[1:], headers
    text = json.dumps(content)
    return json.loads(re.sub(r'"(oid|sha256)": "(.)', r'"\1": "0', text)), headers


def whoami(self: Handler) -> Any:
    role = self.role()
    orgs = [{"name": ORGANIZATION, "type": "org", "roleInOrg": "write"}]
    token = {"displayName": "test", "role": role}
    made = {
        "type": "user",
        "name": USER,
        "orgs": orgs,
        "auth": {"type": "access_token", "accessToken": token},
    }
    return 200, made, {}


def create(self: Handler) -> Any:
    if self.role() != "write":
        raise Refused(403, "", "this token may not write")
    asked = json.loads(self.body)
    owner = asked.get("organization") or USER
    if owner not in (USER, ORGANIZATION):
        raise Refused(403, "", f"You don't have the rights to create a model under the namespace {owner!r}")
    name = f"{owner}/{asked['name']}"
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    fresh = self.hub.store.create(name, private=private)
    url = f"{self.hub.address}/{name}"
    return (200 if fresh else 409), {"url": url, "name": name}, {}


def validate(self: Handler) -> Any:
    return 200, {"errors": [], "warnings": []}, {}


def preupload(self: Handler, name: str, revision: str) -> Any:
    repository = self.repository(name, write=True)
    at = repository.commit_at(revision)
    if at is None:
        raise Refused(404, "RevisionNotFound", "no such revision")
    made = []
    for file in json.loads(self.body)["files"]:
        there = at.files.get(file["path"])
        mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
        oid = (there.lfs or there.oid) if there else None
        made.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return 200, {"files": made, "commitOid": at.oid}, {}


def batch(self: Handler, name: str) -> Any:
    self.repository(name, write=True)
    made = []
    for asked in json.loads(self.body)["objects"]:
        known = self.hub.store.object(asked["oid"]).exists()
        links = {
            "upload": {"href": f"{self.hub.address}/lfs/{asked['oid']}"},
            "verify": {"href": f"{self.hub.address}/lfs-verify/{asked['oid']}"},
        }
        made.append({**asked, **({} if known else {"actions": links})})
    return 200, {"transfer": "basic", "objects": made}, {"Content-Type": "application/vnd.git-lfs+json"}


def put(self: Handler, oid: str) -> Any:
    spoiled = self.fault is not None and self.fault.kind == "wrong hash"
    data = self.body[:-1] + b"?" if spoiled else self.body
    if hashlib.sha256(data).hexdigest() != oid:
        raise Refused(500, "", "the content doesn't have the announced hash")
    self.hub.store.object(oid).write_bytes(data)
    return 200, b"", {}


def verify(self: Handler, oid: str) -> Any:
    if not self.hub.store.object(oid).exists():
        raise Refused(404, "", "no such object")
    return 200, {}, {}


def commit(self: Handler, name: str, revision: str) -> Any:
    repository = self.repository(name, write=True)
    if revision not in repository.branches:
        raise Refused(404, "RevisionNotFound", "no such branch")
    lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    files = {v["path"]: base64.b64decode(v["content"]) for v in _of(lines, "file")}
    lfs = {v["path"]: (v["oid"], v["size"]) for v in _of(lines, "lfsFile")}
    for oid, _ in lfs.values():
        if not self.hub.store.object(oid).exists():
            raise Refused(400, "", f"LFS object {oid} was never uploaded")
    deleted = [v["path"] for v in _of(lines, "deletedFile")]
    try:
        made = self.hub.store.commit(
            name, revision, header["summary"], files, lfs, deleted, header.get("parentCommit")
        )
    except StaleParent as error:
        raise Refused(412, "", "A commit has happened since. Please refresh and try again.") from error
    url = f"{self.hub.address}/{name}/commit/{made.oid}"
    return 200, {"success": True, "commitUrl": url, "commitOid": made.oid}, {}


def _of(lines: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [line["value"] for line in lines if line["key"] == key]


def info(self: Handler, name: str, revision: str = "main") -> Any:
    repository = self.repository(name)
    at = repository.commit_at(revision)
    if at is None:
        raise Refused(404, "RevisionNotFound", "no such revision")
    made: dict[str, Any] = {
        "_id": "1", "id": name, "modelId": name, "sha": at.oid, "private": repository.private,
        "gated": "manual" if repository.gated else False, "tags": [], "downloads": 0, "likes": 0,
        "siblings": [{"rfilename": path} for path in at.files],
    }  # fmt: skip
    if name in self.hub.licences:
        made["cardData"] = {"license": self.hub.licences[name]}
    return 200, made, {}


def dataset(self: Handler, name: str) -> Any:
    if name not in self.hub.licences:
        raise Refused(404, "RepoNotFound", "Repository not found")
    return 200, {"_id": "1", "id": name, "cardData": {"license": self.hub.licences[name]}, "tags": []}, {}


def tree(self: Handler, name: str, revision: str, **_: Any) -> Any:
    at = self.repository(name).commit_at(revision)
    if at is None:
        raise Refused(404, "RevisionNotFound", "no such revision")
    return 200, [_listed(path, entry) for path, entry in sorted(at.files.items())], {}


def paths(self: Handler, name: str, revision: str) -> Any:
    at = self.repository(name).commit_at(revision)
    if at is None:
        raise Refused(404, "RevisionNotFound", "no such revision")
    wanted = json.loads(self.body)["paths"]
    return 200, [_listed(path, at.files[path]) for path in wanted if path in at.files], {}


def _listed(path: str, entry: Entry) -> dict[str, Any]:
    large = {"oid": entry.lfs, "size": entry.size, "pointerSize": 130} if entry.lfs else None
    made: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": entry.oid}
    return made if large is None else {**made, "lfs": large}


def refs(self: Handler, name: str) -> Any:
    found = self.repository(name).branches
    branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": oid} for n, oid in found.items()]
    return 200, {"branches": branches, "converts": [], "tags": []}, {}


def commits(self: Handler, name: str, revision: str) -> Any:
    repository = self.repository(name)
    made, at = [], repository.commit_at(revision)
    while at is not None:
        made.append(
            {
                "id": at.oid,
                "title": at.title,
                "message": "",
                "authors": [],
                "date": "2026-01-01T00:00:00.000Z",
            }
        )
        at = repository.commits.get(at.parent or "")
    return 200, made, {}


def branch(self: Handler, name: str, branch: str) -> Any:
    repository = self.repository(name, write=True)
    with self.hub.store.lock:
        if self.command == "DELETE":
            if repository.branches.pop(branch, None) is None:
                raise Refused(404, "RevisionNotFound", "no such branch")
            return 200, {}, {}
        if branch in repository.branches:
            raise Refused(409, "", "this branch exists already")
        start = json.loads(self.body or b"{}").get("startingPoint") or "main"
        at = repository.commit_at(start)
        if at is None:
            raise Refused(404, "RevisionNotFound", "no such revision")
        repository.branches[branch] = at.oid
    return 200, {}, {}


def auth(self: Handler, name: str, **_: Any) -> Any:
    repository = self.repository(name)
    token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
    if repository.gated and name not in self.hub.accepted:
        raise Refused(
            403, "GatedRepo", f"Access to model {name} is restricted; visit {self.hub.address}/{name}"
        )
    if self.path.endswith("/write") and self.hub.tokens.get(token) != "write":
        raise Refused(403, "", "this token may not write")
    return 200, {}, {}


def resolve(self: Handler, name: str, revision: str, path: str) -> Any:
    repository = self.repository(name)
    if repository.gated and name not in self.hub.accepted:
        raise Refused(403, "GatedRepo", f"Access to model {name} is restricted")
    at = repository.commit_at(revision)
    if at is None:
        raise Refused(404, "RevisionNotFound", "no such revision")
    entry = at.files.get(path)
    if entry is None:
        raise Refused(404, "EntryNotFound", "Entry not found")
    data = self.hub.store.read(entry)
    headers = {"X-Repo-Commit": at.oid, "ETag": f'"{entry.lfs or git_oid(data)}"', "Accept-Ranges": "bytes"}
    if entry.lfs:
        headers |= {"X-Linked-Etag": f'"{entry.lfs}"', "X-Linked-Size": str(entry.size)}
    if self.command == "HEAD":
        return 200, b"", {**headers, "Content-Length": str(len(data))}
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
    if span:
        first, last = int(span[1]), int(span[2] or len(data) - 1)
        if first >= len(data):
            raise Refused(416, "", "beyond the end")
        part = data[first : last + 1]
        return 206, part, {**headers, "Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"}
    return 200, data, headers


ROUTES: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    ("GET", r"/api/whoami-v2", "whoami", whoami),
    ("POST", r"/api/repos/create", "create", create),
    ("POST", r"/api/validate-yaml", "validate", validate),
    ("POST", rf"/api/models/{NAME}/preupload/(?P<revision>.+)", "preupload", preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", "batch", batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "put", put),
    ("POST", r"/lfs-verify/(?P<oid>[0-9a-f]{64})", "lfs-verify", verify),
    ("POST", rf"/api/models/{NAME}/commit/(?P<revision>.+)", "commit", commit),
    ("GET", rf"/api/models/{NAME}/tree/(?P<revision>[^/]+)(?P<folder>/.*)?", "tree", tree),
    ("POST", rf"/api/models/{NAME}/paths-info/(?P<revision>.+)", "paths", paths),
    ("GET", rf"/api/models/{NAME}/refs", "refs", refs),
    ("GET", rf"/api/models/{NAME}/commits/(?P<revision>.+)", "commits", commits),
    ("POST", rf"/api/models/{NAME}/branch/(?P<branch>.+)", "branch", branch),
    ("DELETE", rf"/api/models/{NAME}/branch/(?P<branch>.+)", "delete", branch),
    ("GET", rf"/api/models/{NAME}/auth-check(?P<more>/write)?", "auth", auth),
    ("GET", rf"/api/models/{NAME}/revision/(?P<revision>.+)", "info", info),
    ("GET", rf"/api/models/{NAME}", "info", info),
    ("GET", r"/api/datasets/(?P<name>[^/]+/[^/]+)", "dataset", dataset),
    ("GET HEAD", rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve", resolve),
)  # fmt: skip


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """The handler of one server."""
    return type("Bound", (Handler,), {"hub": hub})
