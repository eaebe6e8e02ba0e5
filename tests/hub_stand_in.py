"""A model hub to order: the HTTP API that core/store/sources/hub.py speaks, in a thread, with its faults.

Large files are answered by a redirect to where they are kept, as hubs do; `faults` says what goes wrong with whom.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import ssl
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_a_secret_of_the_company"


@dataclass
class Faults:
    """What goes wrong, by the file's path."""

    cut_after: dict[str, list[int]] = field(default_factory=dict)
    """The connection breaks after so many bytes, once for each entry."""
    stall_after: dict[str, list[int]] = field(default_factory=dict)
    """Silence after so many bytes, once for each entry."""
    gone_after_first: set[str] = field(default_factory=set)
    """404 from the second request on."""
    wrong_bytes: set[str] = field(default_factory=set)
    """Other bytes than the listing's checksum is of."""
    no_ranges: bool = False
    busy: int = 0
    """So many answers of 503 first."""
    redirect_to: str | None = None
    """Where large files lie, beside this server."""
    no_checksums: bool = False
    circle: bool = False


@dataclass
class Seen:
    """A request: its path, and the headers that matter."""

    path: str
    authorization: str | None
    range: str | None
    host: str


class HubStandIn:
    """`with HubStandIn({"org/name": {"model.onnx": bytes}}) as hub:` serves at `hub.url` until the block ends."""

    def __init__(
        self,
        repositories: dict[str, dict[str, bytes]],
        *,
        gated: tuple[str, ...] = (),
        certificate: Path | None = None,
        small_bytes: int = 1024,
    ) -> None:
        self.repositories = repositories
        self.gated = gated
        self.faults = Faults()
        self.seen: list[Seen] = []
        self.served: dict[str, int] = defaultdict(int)
        self.pipeline_tag: str | None = None
        self.small_bytes = small_bytes
        self.ending = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        scheme, host = "http", "127.0.0.1"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme, host = "https", "localhost"
        self.url = f"{scheme}://{host}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="hub stand-in")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ending.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def requests_of(self, part: str) -> list[Seen]:
        """The requests whose path holds `part`."""
        return [one for one in self.seen if part in one.path]


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """As git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _handler_of(hub: HubStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0]).strip("/")
            hub.seen.append(Seen(path, self.headers["Authorization"], self.headers["Range"], self.headers["Host"]))
            if hub.faults.busy:
                hub.faults.busy -= 1
                self._refuse(503, "")
            elif path.startswith("api/models/"):
                self._list(*path.removeprefix("api/models/").split("/revision/"))
            elif path.startswith("kept/"):
                self._send_kept(path.removeprefix("kept/"))
            else:
                self._resolve(path)

        def _list(self, name: str, revision: str) -> None:
            if self._barred(name):
                return
            if revision not in ("main", "v1", COMMIT, "refs/pr/1"):
                self._refuse(404, "RevisionNotFound")
                return
            siblings = [self._entry(path, data) for path, data in hub.repositories[name].items()]
            self._json({"id": name, "sha": COMMIT, "siblings": siblings, "pipeline_tag": hub.pipeline_tag})

        def _entry(self, path: str, data: bytes) -> dict[str, Any]:
            if hub.faults.no_checksums:
                return {"rfilename": path}
            entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_sha1(data)}
            if len(data) > hub.small_bytes:
                entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
            return entry

        def _resolve(self, path: str) -> None:
            name, _, rest = path.partition("/resolve/")
            _, _, file = rest.partition("/")
            if self._barred(name):
                return
            hub.served[file] += 1
            data = hub.repositories[name].get(file)
            if data is None or (file in hub.faults.gone_after_first and hub.served[file] > 1):
                self._refuse(404, "EntryNotFound")
            elif hub.faults.circle:
                self._redirect("/" + path, data)
            elif len(data) > hub.small_bytes:
                self._redirect(f"{hub.faults.redirect_to or ''}/kept/{name}/{file}", data)
            else:
                self._send(file, data)

        def _redirect(self, target: str, data: bytes) -> None:
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Etag", f'"{sha256(data)}"')
            self.send_header("X-Linked-Size", str(len(data)))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send_kept(self, path: str) -> None:
            organisation, name, file = path.split("/", 2)
            self._send(file, hub.repositories[f"{organisation}/{name}"][file])

        def _send(self, file: str, data: bytes) -> None:
            if file in hub.faults.wrong_bytes:
                data = bytes(len(data))
            start = 0
            if self.headers["Range"] and not hub.faults.no_ranges:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("ETag", f'"{git_sha1(data)}"')
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self._write(file, data[start:])

        def _write(self, file: str, data: bytes) -> None:
            cuts, stalls = hub.faults.cut_after.get(file), hub.faults.stall_after.get(file)
            if cuts:
                self.wfile.write(data[: cuts.pop(0)])
                self.close_connection = True
            elif stalls:
                self.wfile.write(data[: stalls.pop(0)])
                hub.ending.wait(20)
                self.close_connection = True
            else:
                self.wfile.write(data)

        def _barred(self, name: str) -> bool:
            if name not in hub.repositories:
                self._refuse(401, "RepoNotFound")
                return True
            if name in hub.gated and self.headers["Authorization"] != f"Bearer {TOKEN}":
                self._refuse(403 if self.headers["Authorization"] else 401, "GatedRepo")
                return True
            return False

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _json(self, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def make_certificate(folder: Path) -> Path:
    """A key and a certificate of `localhost`, signed by itself, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
