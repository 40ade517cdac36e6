"""The base image of everything built in the lab: Debian 12 made by mmdebstrap, because no registry is needed for it.

Minimal on purpose: Debian's minbase set and ca-certificates. Its apt sources are the machine's own mirror, so what
works on the machine works in a build.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
from pathlib import Path
from typing import BinaryIO

from .debian import Source, codename, install_on_host, sources
from .engine import client_environment, docker
from .paths import Paths
from .push import ARCHITECTURES
from .steps import LabError, run, step

IMAGE = "nimctl-lab/base:bookworm"
SUITE = "bookworm"


def ensure_base_image(paths: Paths) -> None:
    """Have IMAGE in the lab's engine, from the tarball in the state folder, which is made when it is not there."""
    if has_image(paths):
        return
    if not paths.base_tarball.exists():
        install_on_host({"mmdebstrap": "mmdebstrap"})
        with step("make the base image with mmdebstrap"):
            _bootstrap(paths.base_tarball)
    with step(f"import it as {IMAGE}"):
        if paths.store == "containerd":
            _load(paths)
        else:
            docker(paths, "import", "--change", 'CMD ["bash"]', paths.base_tarball, IMAGE)


def has_image(paths: Paths) -> bool:
    try:
        docker(paths, "image", "inspect", IMAGE, timeout=30)
    except LabError:
        return False
    return True


def _load(paths: Paths) -> None:
    """As `docker load` takes it: over containerd's store `docker import` compresses first, eight seconds for this."""
    layer = paths.base_tarball
    with layer.open("rb") as tar:
        diff_id = hashlib.file_digest(tar, "sha256").hexdigest()
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()), "os": "linux",
        "created": "2025-01-01T00:00:00Z", "config": {"Cmd": ["bash"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
    }  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    argv = [str(paths.unpacked / "usr/bin/docker"), "load", "--quiet"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, env=client_environment(paths), **pipes) as docker_load:
        assert docker_load.stdin is not None
        with contextlib.suppress(BrokenPipeError), tarfile.open(fileobj=docker_load.stdin, mode="w|") as archive:
            for name, document in (("manifest.json", manifest), ("config.json", config)):
                _add(archive, name, io.BytesIO(json.dumps(document).encode()))
            with layer.open("rb") as tar:
                _add(archive, "layer.tar", tar)
        said = docker_load.communicate(timeout=120)[1]
    if docker_load.returncode != 0:
        raise LabError(
            f"`docker load` of the base image failed: {said.decode(errors='replace')}", "see the message above"
        )


def _add(archive: tarfile.TarFile, name: str, content: BinaryIO) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, os.SEEK_END)
    content.seek(0)
    archive.addfile(entry, content)


def _bootstrap(tarball: Path) -> None:
    tarball.parent.mkdir(parents=True, exist_ok=True)
    unfinished = tarball.with_suffix(".unfinished.tar")
    lines = [f"deb {_reachable(source.uri)} {source.suite} main" for source in _base_sources()]
    keyring = next((["--keyring", source.keyring] for source in sources() if source.keyring), [])
    argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--include=ca-certificates", *keyring]
    run([*argv, SUITE, unfinished, *lines], env={**os.environ, "LC_ALL": "C"}, timeout=600)
    unfinished.rename(tarball)


def _base_sources() -> list[Source]:
    """The machine's repositories, with the suite of the base image where the machine's own is another."""
    own = codename()
    return [Source(source.uri, source.suite.replace(own, SUITE), source.keyring) for source in sources()]


def _reachable(uri: str) -> str:
    """A mirror list in a local file means nothing inside a container: its first entry does."""
    if uri.startswith("mirror+file:"):
        listed = Path("/" + uri.removeprefix("mirror+file:").strip("/")).read_text().split()
        return listed[0]
    return uri
