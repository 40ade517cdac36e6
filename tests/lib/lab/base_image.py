"""The base image of everything built in the lab: Debian 12 made by mmdebstrap, because no registry is needed for it.

Minimal on purpose: Debian's minbase set and ca-certificates. Its apt sources are the machine's own mirror, so what
works on the machine works in a build.
"""

import os
from pathlib import Path

from .debian import Source, codename, install_on_host, sources
from .engine import docker
from .paths import Paths
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
        docker(paths, "import", "--change", 'CMD ["bash"]', paths.base_tarball, IMAGE)


def has_image(paths: Paths) -> bool:
    try:
        docker(paths, "image", "inspect", IMAGE, timeout=30)
    except LabError:
        return False
    return True


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
