"""Small images for the lab's registry, pushed over its own API so that no engine is needed."""

import base64
import hashlib
import http.client
import io
import json
import platform
import tarfile
from dataclasses import dataclass

from .steps import LabError

USER = "$oauthtoken"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Registry:
    """Where the registry is (`127.0.0.1:5055`) and the key that it accepts for user `$oauthtoken`."""

    address: str
    key: str
    user: str = USER


def push_image(registry: Registry, repository_and_tag: str, files: dict[str, bytes] | None = None) -> str:
    """Push a one-layer image with these files (path -> content). Returns the manifest's digest."""
    repository, _, tag = repository_and_tag.rpartition(":")
    layer = _layer(files or {"hello": f"{repository_and_tag}\n".encode()})
    config = json.dumps({
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()), "os": "linux",
        "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/hello"]},
        "created": "2025-01-01T00:00:00Z", "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }).encode()  # fmt: skip
    client = _Client(registry, repository)
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


def push_index(registry: Registry, repository_and_tag: str, platforms: dict[str, str]) -> str:
    """Push an index of images that lie in the repository: platform (`linux/ppc64le`) -> digest. Returns its digest."""
    repository, _, tag = repository_and_tag.rpartition(":")
    client, media, entries = _Client(registry, repository), "application/vnd.oci.image", []
    for name, digest in platforms.items():
        size = int(
            client.call("HEAD", f"manifests/{digest}", b"", {"Accept": f"{media}.manifest.v1+json"})["Content-Length"]
        )
        where = dict(zip(("os", "architecture", "variant"), name.split("/"), strict=False))
        entries.append({"mediaType": f"{media}.manifest.v1+json", "digest": digest, "size": size, "platform": where})
    index = json.dumps({"schemaVersion": 2, "mediaType": f"{media}.index.v1+json", "manifests": entries}).encode()
    client.call("PUT", f"manifests/{tag}", index, {"Content-Type": f"{media}.index.v1+json"})
    return _digest(index)


class _Client:
    """Pushes as the registry's own user: situations are about pulling, so a push is never refused to the key."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self._host = registry.address
        self._repository = repository
        scope = f"repository:{repository}:pull,push"
        credentials = f"{registry.user}:{registry.key}".encode()
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

    def _request(
        self, method: str, target: str, body: bytes, headers: dict[str, str]
    ) -> tuple[bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection(self._host, timeout=30)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status >= 300:
                raise LabError(
                    f"{method} {target} on the lab's registry: {response.status} {answer[:200]!r}", "read its logs"
                )
            return answer, response.headers
        finally:
            connection.close()


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
