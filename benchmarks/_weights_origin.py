"""A checkpoint of random bytes behind nginx on a free loopback port, which speaks the Hub's API from files.

The addresses that a client of the Hub asks (https://huggingface.co/docs/hub/api) are answered by nginx itself: the
revision and the file list are files, an LFS file is a 302 to another host, which has the bytes. So the server is the
same for everybody, and costs as little as a server can. The bytes lie in memory (/dev/shm) where there is room, as
reading them from the disk that is written to would be measured too.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPO = "bench/weights"
COMMIT = "c0ffee" + "0" * 34
_BLOCK = 16 * 2**20  # bytes
_CONFIG = b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'


@dataclass(frozen=True)
class Shard:
    """One file: its name, bytes and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Origin:
    """What is served: `url` is HF_ENDPOINT, `file_url` has the bytes; `source` says where they lie; `pid` is nginx."""

    url: str
    source: str
    shards: tuple[Shard, ...]
    folder: Path

    @property
    def total(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)

    def file_url(self, shard: Shard) -> str:
        """Where the bytes are, without a redirect."""
        return f"{_bytes_url(self.url)}/{shard.name}"


@contextlib.contextmanager
def origin(
    count: int, size: int, *, rate: int | None = None, cpu: int | None = None, folder: Path | None = None
) -> Iterator[Origin]:
    """`count` shards of `size` bytes, served until the block ends.

    `rate` bounds each connection (bytes a second); `cpu` binds nginx to one core.
    """
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if nginx is None:
        raise SystemExit("error: nginx is needed: apt-get install nginx-light")
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and min(shutil.disk_usage(shared).free, _available()) > 2 * count * size
    place = shared if roomy and folder is None else folder
    with tempfile.TemporaryDirectory(prefix="nimctl-bench-", dir=place) as name:
        root = Path(name)
        root.chmod(0o755)  # nginx's workers are somebody else
        shards = _shards(root / "bytes", count, size)
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        config = _configure(root, url, port, shards, rate)
        server = subprocess.Popen([*_bound(cpu), nginx, "-c", str(config), "-p", str(root)], stderr=subprocess.DEVNULL)
        try:
            _wait_for(port, server)
            yield Origin(url, "memory" if place == shared else "disk", shards, root)
        finally:
            server.terminate()
            server.wait(timeout=10)


def need_room(folder: Path, size: int) -> None:
    """End with a sentence where `folder` has not `size` bytes."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise SystemExit(f"error: {folder} has {free / 1e9:.0f} GB free, and {size / 1e9:.0f} GB are needed: --folder")


def _bytes_url(url: str) -> str:
    return url.replace("127.0.0.1", "127.0.0.2") + "/bytes"


def _bound(cpu: int | None) -> list[str]:
    return [] if cpu is None else ["taskset", "-c", str(cpu)]


def _available() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _shards(folder: Path, count: int, size: int) -> tuple[Shard, ...]:
    """Valid safetensors files of one tensor, no two blocks of which are alike."""
    folder.mkdir()
    noise = os.urandom(_BLOCK)
    shards = []
    for number in range(count):
        path = folder / f"model-{number + 1:05}-of-{count:05}.safetensors"
        head = json.dumps({f"t{number}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}})
        length = size - 8 - 128
        head = head.replace("[0, 0]", f"[0, {length}]").replace("[0]", f"[{length}]").ljust(128)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            left, block = size, len(head).to_bytes(8, "little") + head.encode()
            for turn in range(1 << 30):
                digest.update(block)
                file.write(block)
                left -= len(block)
                if not left:
                    break
                cut = (turn * 7919 + number * 104729) * 4096 % _BLOCK
                block = (noise[cut:] + noise[:cut])[: min(left, _BLOCK)]
        shards.append(Shard(path.name, size, digest.hexdigest()))
    return tuple(shards)


def _configure(root: Path, url: str, port: int, shards: tuple[Shard, ...], rate: int | None) -> Path:
    names = [shard.name for shard in shards]
    index = json.dumps({"metadata": {}, "weight_map": {f"t{n}": name for n, name in enumerate(names)}}).encode()
    small = {"config.json": _CONFIG, "model.safetensors.index.json": index}
    locations, tree = [], []
    (root / "api").mkdir()
    for name, data in small.items():
        (root / "api" / name).write_bytes(data)
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        tree.append({"type": "file", "path": name, "size": len(data), "oid": blob})
        locations.append(
            f"location = /{REPO}/resolve/{COMMIT}/{name} {{ alias {root}/api/{name}; etag off; "
            f"add_header ETag '\"{blob}\"'; add_header X-Repo-Commit {COMMIT}; }}"
        )
    for shard in shards:
        oid = hashlib.sha1(shard.name.encode(), usedforsecurity=False).hexdigest()
        lfs = {"oid": shard.sha256, "size": shard.size, "pointerSize": 134}
        tree.append({"type": "file", "path": shard.name, "size": shard.size, "oid": oid, "lfs": lfs})
        locations.append(
            f"location = /{REPO}/resolve/{COMMIT}/{shard.name} {{ add_header X-Repo-Commit {COMMIT} always; "
            f"add_header X-Linked-Size {shard.size} always; add_header X-Linked-ETag '\"{shard.sha256}\"' always; "
            f"return 302 {_bytes_url(url)}/{shard.name}; }}"
        )
    model = {"_id": COMMIT[:24], "id": REPO, "sha": COMMIT, "siblings": [{"rfilename": e["path"]} for e in tree]}
    (root / "api" / "model.json").write_text(json.dumps({**model, "private": False, "tags": [], "downloads": 0}))
    (root / "api" / "tree.json").write_text(json.dumps(tree))
    log = f"{root}/access.log"
    config = root / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 2; pid {root}/nginx.pid; error_log {root}/error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;\n"
        + "".join(f"{kind}_temp_path {root}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        + "log_format sent '$uri $body_bytes_sent';\n"
        f"server {{ listen 127.0.0.1:{port}; listen 127.0.0.2:{port}; root {root}; default_type application/json;\n"
        f"location /bytes/ {{ access_log {log} sent; {f'limit_rate {rate};' if rate else ''} }}\n"
        f"location = /api/models/{REPO}/revision/main {{ alias {root}/api/model.json; }}\n"
        f"location = /api/models/{REPO}/revision/{COMMIT} {{ alias {root}/api/model.json; }}\n"
        f"location /api/models/{REPO}/tree/{COMMIT} {{ alias {root}/api/tree.json; }}\n"
        + "\n".join(locations)
        + "\n} }\n"
    )
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("error: nginx did not start") from error
            time.sleep(0.02)
