"""A real keyring for Docker's logins: docker-credential-pass with pass and gpg, in a folder of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lib.lab import debian, engine
from tests.lib.lab.paths import paths

PACKAGES = ("golang-docker-credential-helpers", "pass")


@contextmanager
def keyring(folder: Path) -> Iterator[dict[str, str]]:
    """The variables of a shell in which pass and its helper work; `folder` has a short path, for gpg's sockets."""
    debian.install_on_host({"gpg": "gnupg"})
    root = debian.unpack_beside(paths(), *PACKAGES)
    home = folder / "gnupg"
    home.mkdir(mode=0o700, parents=True)
    environment = {
        "PATH": f"{root}/usr/bin:{os.environ.get('PATH', engine.DEFAULT_PATH)}",
        "GNUPGHOME": str(home),
        "PASSWORD_STORE_DIR": str(folder / "store"),
    }
    everything = {**os.environ, **environment}
    try:
        for argv in (
            ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "lab", "future-default"],
            ["pass", "init", "lab"],
        ):
            subprocess.run(argv, env=everything, check=True, capture_output=True, timeout=60)
        yield environment
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=everything, check=False, timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def held(environment: dict[str, str]) -> list[str]:
    """What the password store holds, as files."""
    return sorted(path.name for path in Path(environment["PASSWORD_STORE_DIR"]).rglob("*.gpg"))
