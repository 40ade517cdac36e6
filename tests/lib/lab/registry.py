"""The lab's image registry: Debian's docker-registry behind a front with token authentication, on 127.0.0.1.

The front (front.py) is a process of its own; this module starts both, says where they are and pushes small images.
Who may pull what is in `registry/config.json` of the state folder, read again at every request:

    key            the password of user $oauthtoken
    repositories   [pattern, situation] in order, first match counts; `set_situation` writes it

Situations: `open` (anyone may pull) · `key` (only with the key) · `payment-required` (402) · `terms` (403, DENIED) ·
`rate-limited` (429) · `unavailable` (503). A wrong key is a 401 everywhere, an unknown image 404.
"""

import base64
import hashlib
import http.client
import io
import json
import os
import secrets
import socket
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import engine
from .paths import Paths
from .steps import LabError, run, running_pid, start_daemon, step, stop_daemon, wait_until

USER = "$oauthtoken"
PORT = 5055  # tried first, so that image names stay the same between runs
FRONT = Path(__file__).with_name("front.py")
# By name, so that a test can be read without a set-up; `nim/` is what nvcr.io does.
REPOSITORIES = [["open/*", "open"], ["unpaid/*", "payment-required"], ["terms/*", "terms"], ["busy/*", "rate-limited"],
                ["down/*", "unavailable"], ["*", "key"]]  # fmt: skip
PUBLISHED = ("nim/moonshotai/kimi-k2.5:1.7.0-variant", "nim/moonshotai/kimi-k2.5-turbo:1.0.0", "open/tiny:1", "unpaid/tiny:1",
             "terms/tiny:1", "busy/tiny:1", "down/tiny:1")  # fmt: skip


@dataclass(frozen=True)
class Registry:
    """Where the registry is (`127.0.0.1:5055`) and the key that it accepts for user `$oauthtoken`."""

    address: str
    key: str
    user: str = USER


def info(paths: Paths) -> Registry:
    config = _config(paths)
    return Registry(f"127.0.0.1:{config['port']}", config["key"])


def start_registry(paths: Paths) -> None:
    """Have the registry answering and the PUBLISHED images in it."""
    if answers(paths) and _config(paths).get("source") == _source_digest():
        return
    stop_registry(paths)
    paths.registry.mkdir(parents=True, exist_ok=True)
    _make_certificate(paths)
    _write_config(paths, {**_new_config(paths), "source": _source_digest()})
    with step("start the registry"):
        _start(paths, "registry", [paths.unpacked / "usr/bin/docker-registry", "serve", paths.registry / "registry.yml"])
        # -I: the front must not pick up modules of the folder it lies in
        _start(paths, "front", [sys.executable, "-I", FRONT, paths.registry / "config.json"])
        wait_until(lambda: answers(paths), what="the registry", seconds=20, log=paths.logs / "front.log", alive=lambda: _alive(paths))
    for image in PUBLISHED:
        push_image(paths, image)


def stop_registry(paths: Paths) -> bool:
    return any([stop_daemon(paths.run / "front.pid"), stop_daemon(paths.run / "registry.pid")])


def answers(paths: Paths) -> bool:
    """Whether GET /v2/ is answered with the token challenge."""
    if not (_alive(paths) and (paths.registry / "config.json").exists()):
        return False
    connection = http.client.HTTPConnection("127.0.0.1", _config(paths)["port"], timeout=2)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 401
    except OSError:
        return False
    finally:
        connection.close()


def set_situation(paths: Paths, pattern: str, situation: str) -> None:
    """Make repositories of this fnmatch pattern answer so from the next request on. The newest rule counts."""
    config = _config(paths)
    rules = [rule for rule in config["repositories"] if rule[0] != pattern]
    _write_config(paths, {**config, "repositories": [[pattern, situation], *rules]})


def reset_situations(paths: Paths) -> None:
    _write_config(paths, {**_config(paths), "repositories": REPOSITORIES})


def push_image(paths: Paths, repository_and_tag: str, files: dict[str, bytes] | None = None) -> str:
    """Push a one-layer image with these files (path -> content) over the registry's API. Returns the manifest's digest."""
    repository, _, tag = repository_and_tag.rpartition(":")
    layer = _layer(files or {"hello": f"{repository_and_tag}\n".encode()})
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/hello"]},
        "created": "2025-01-01T00:00:00Z", "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }).encode()  # fmt: skip
    client = _Client(paths, repository)
    for blob in (layer, config):
        client.upload(blob)
    media = "application/vnd.oci.image"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": f"{media}.manifest.v1+json",
        "config": {"mediaType": f"{media}.config.v1+json", "digest": _digest(config), "size": len(config)},
        "layers": [{"mediaType": f"{media}.layer.v1.tar", "digest": _digest(layer), "size": len(layer)}],
    }).encode()  # fmt: skip
    client.call("PUT", f"manifests/{tag}", manifest, {"Content-Type": f"{media}.manifest.v1+json"})
    return _digest(manifest)


def docker_config(paths: Paths, folder: Path, *, key: str | None = None) -> Path:
    """Make `folder` a DOCKER_CONFIG with buildx, logged in with `key` when one is given."""
    engine.write_client_configuration(folder, paths)
    if key is not None:
        argv = ("--config", folder, "login", "-u", USER, "--password-stdin", info(paths).address)
        engine.docker(paths, *argv, text_in=key, timeout=30)
    return folder


class _Client:
    """Pushes as the registry's own user: situations are about pulling, so a push is never refused to the key."""

    def __init__(self, paths: Paths, repository: str) -> None:
        registry = info(paths)
        self._host = registry.address
        self._repository = repository
        scope = f"repository:{repository}:pull,push"
        credentials = f"{USER}:{registry.key}".encode()
        head = {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}
        self._token = ""
        answer, _ = self._request("GET", f"/proxy_auth?scope={scope}", b"", head)
        self._token = json.loads(answer)["token"]

    def call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPMessage:
        target = path if path.startswith("/") else f"/v2/{self._repository}/{path}"
        return self._request(method, target, body, {"Authorization": f"Bearer {self._token}", **headers})[1]

    def upload(self, blob: bytes) -> None:
        location = self.call("POST", "blobs/uploads/", b"", {})["Location"]
        joint = "&" if "?" in location else "?"
        self.call("PUT", f"{location}{joint}digest={_digest(blob)}", blob, {"Content-Type": "application/octet-stream"})

    def _request(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection(self._host, timeout=30)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status >= 300:
                raise LabError(f"{method} {target} on the lab's registry: {response.status} {answer[:200]!r}", "read its logs")
            return answer, response.headers
        finally:
            connection.close()


def _start(paths: Paths, name: str, argv: list[str | Path]) -> None:
    env = {"PATH": os.environ.get("PATH", engine.DEFAULT_PATH)}
    start_daemon(argv, env=env, pid_file=paths.run / f"{name}.pid", log=paths.logs / f"{name}.log")


def _alive(paths: Paths) -> bool:
    return all(running_pid(paths.run / f"{name}.pid") is not None for name in ("registry", "front"))


def _config(paths: Paths) -> dict[str, Any]:
    return json.loads((paths.registry / "config.json").read_text())


def _write_config(paths: Paths, config: dict[str, Any]) -> None:
    new = paths.registry / "config.new"
    new.touch(mode=0o600)
    new.write_text(json.dumps(config, indent=1))
    new.rename(paths.registry / "config.json")


def _new_config(paths: Paths) -> dict[str, Any]:
    """Keep key and port of an earlier run, so that what tests wrote down stays true; write the registry's own file."""
    known = _config(paths) if (paths.registry / "config.json").exists() else {}
    port = _free_port(known.get("port", PORT))
    upstream = paths.run / "registry.sock"
    upstream.unlink(missing_ok=True)
    (paths.registry / "registry.yml").write_text(
        "version: 0.1\n"
        "log: {level: warn, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {paths.registry}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{net: unix, addr: {upstream}, relativeurls: true}}\n"
        f"auth: {{token: {{realm: 'http://127.0.0.1:{port}/proxy_auth', service: nimctl-lab, issuer: nimctl-lab, "
        f"rootcertbundle: {paths.registry}/token.crt}}}}\n"
    )
    return {
        "key": known.get("key") or f"nvapi-{secrets.token_urlsafe(48)}",
        "port": port,
        "upstream": str(upstream),
        "signing_key": str(paths.registry / "token.key"),
        "certificate": str(paths.registry / "token.crt"),
        "repositories": REPOSITORIES,
    }


def _make_certificate(paths: Paths) -> None:
    if (paths.registry / "token.crt").exists():
        return
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=nimctl-lab",
         "-keyout", paths.registry / "token.key", "-out", paths.registry / "token.crt"])  # fmt: skip


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _source_digest() -> str:
    return hashlib.sha256(FRONT.read_bytes() + Path(__file__).read_bytes()).hexdigest()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _layer(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
