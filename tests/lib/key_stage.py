"""Where the scenes of `key_scenes` play: a registry and a home of their own, Docker logins of every kind, secrets."""

import base64
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nimctl.cli import VERBS
from tests.conftest import private_environment
from tests.lib import lab
from tests.lib.fault_hub.proxy import ForwardProxy
from tests.lib.lab import registry, simulated
from tests.lib.lab.paths import Paths, paths
from tests.lib.lab.push import push_image
from tests.lib.little_registry import USER

PROXY_USER = "reader"
# Docker's protocol, with a file as the keyring; `talks` is one that fails and prints what it was told.
HELPER = """#!/bin/sh
umask 077
case $1 in
  store) cat > "$0.kept" ;;
  get)
    cat > /dev/null
    [ -f "$0.kept" ] || { echo "credentials not found in native keychain"; exit 1; }
    cat "$0.kept" ;;
  erase) cat > /dev/null; rm -f "$0.kept" ;;
  list) echo '{}' ;;
esac
"""
TALKS = '#!/bin/sh\ntold=$(cat)\necho "cannot keep $told"\necho "cannot keep $told" >&2\nexit 1\n'
MEBIBYTE = 1 << 20


class Guard(ForwardProxy):
    """A proxy that lets nobody through but who has the canary."""

    def __init__(self, host: str, password: str) -> None:
        self._password = password
        super().__init__("credentials", host=host)

    def verdict(self, headers: Mapping[str, str]) -> int:
        """As ForwardProxy, with this guard's own password."""
        wanted = "Basic " + base64.b64encode(f"{PROXY_USER}:{self._password}".encode()).decode()
        return 200 if headers.get("proxy-authorization") == wanted else 407


def new_canaries() -> dict[str, str]:
    """Fresh secrets by name; each with characters that addresses and base64 write differently, where it may."""

    def fresh(prefix: str, tail: str = "") -> str:
        return f"{prefix}c4n4ry{secrets.token_hex(12)}{tail}"

    return {
        "NGC_API_KEY": fresh("nvapi-", "_-x"),
        "HF_TOKEN": fresh("hf_"),
        "registry password": fresh("nvapi-", "-_y"),
        "refused key": fresh("", "+/=z"),
        "proxy password": fresh("", "~!"),
        "pip password": fresh("", "_q"),
        "CA bundle": fresh("# marker "),
        "passphrase": fresh("", " of two"),
    }


@contextmanager
def own_registry(folder: Path, key: str) -> Iterator[Paths]:
    """A registry like the lab's, with `key` as the only one that is accepted."""
    place = Paths(folder)
    place.make()
    place.unpacked.rmdir()
    place.unpacked.symlink_to(paths().unpacked)
    (place.registry / "config.json").write_text(json.dumps({"key": key, "port": 0}))
    registry.start_registry(place)
    try:
        yield place
    finally:
        registry.stop_registry(place)


def docker_folders(folder: Path, address: str, canaries: Mapping[str, str]) -> dict[str, str]:
    """A DOCKER_CONFIG for each kind of login: none, plain, wrong, broken, and with helpers that work or fail."""

    def auth(key: str) -> dict[str, Any]:
        return {"auths": {address: {"auth": base64.b64encode(f"{USER}:{key}".encode()).decode()}}}

    contents: dict[str, Any] = {
        "nobody": {},
        "plain": {},
        "given": auth(canaries["registry password"]),
        "wrong": auth(canaries["refused key"]),
        "store": {"credsStore": "file"},
        "helper": {"credHelpers": {address: "file"}},
        "talks": {"credsStore": "talks"},
    }
    plugins = {"cliPluginsExtraDirs": [str(paths().buildx_folder)]}
    for name, content in contents.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps({**plugins, **content}))
    (folder / "broken").mkdir()
    (folder / "broken/config.json").write_text(json.dumps(auth(canaries["registry password"]))[:-2])
    return {name: str(folder / name) for name in (*contents, "broken")}


def programs(folder: Path) -> Path:
    """The credential helpers, in a folder for the PATH."""
    folder.mkdir()
    for name, text in (("file", HELPER), ("talks", TALKS)):
        (folder / f"docker-credential-{name}").write_text(text)
        (folder / f"docker-credential-{name}").chmod(0o755)
    return folder


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def set_stage(top: Path, place: Paths, proxy: str, canaries: dict[str, str], options: Mapping[str, Any]) -> Path:
    """Write the stage file, and everything it names; returns its path."""
    home, private, temporary = top / "home", top / "private", top / "tmp"
    for folder in (home, private / "out", temporary):
        folder.mkdir(parents=True)
    address = registry.info(place).address
    large = push_image(registry.info(place), "nim/large:1", {"large": os.urandom(options["large_mib"] * MEBIBYTE)})
    bundle = next(p for p in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/cert.pem") if Path(p).exists())
    shutil.copy(bundle, private / "ca.pem")
    with (private / "ca.pem").open("a") as ca:
        ca.write(f"\n{canaries['CA bundle']}\n")
    scheme, _, rest = proxy.partition("://")
    with_password = f"{scheme}://{PROXY_USER}:{canaries['proxy password']}@{rest}"
    for name, index in (("pip.conf", "extra-index-url"), ("pip-refused.conf", "index-url")):
        password = canaries["pip password" if name == "pip.conf" else "refused key"]
        (private / name).write_text(f"[global]\n{index} = https://reader:{password}@127.0.0.1:9/simple\nretries = 0\n")
    variables = simulated.variables(paths(), "none")
    environment = private_environment({**os.environ, **variables}, home) | {
        "TMPDIR": str(temporary),
        "NGC_API_KEY": canaries["NGC_API_KEY"],
        "HF_TOKEN": canaries["HF_TOKEN"],
        "SSL_CERT_FILE": str(private / "ca.pem"),
        "HTTP_PROXY": with_password,
        "HTTPS_PROXY": with_password,
        "PATH": f"{programs(top / 'bin')}:{variables['PATH']}",
    }
    stage = {
        "registry": address,
        "canaries": canaries,
        "docker": docker_folders(top / "docker", address, canaries),
        "home": str(home),
        "out": str(private / "out"),
        "front_log": str(place.logs / "front.log"),
        "large": _layer_of(place, large),
        "ports": {"docker": free_port(), "process": free_port()},
        "environment": environment,
        "proxy_of_builds": {},
        "pip": str(private / "pip.conf"),
        "pip_refused": str(private / "pip-refused.conf"),
        "ca": str(private / "ca.pem"),
        "keys": str(private / "keys"),
        "verbs": sorted(VERBS),
        **options,
    }
    (private / "stage.json").write_text(json.dumps(stage, indent=1))
    return private / "stage.json"


def _layer_of(place: Paths, digest: str) -> str:
    blob = place.registry / "data/docker/registry/v2/blobs/sha256" / digest[7:9] / digest[7:] / "data"
    return str(json.loads(blob.read_text())["layers"][0]["digest"])


def docker_command() -> list[str]:
    """The lab's docker client, for programs that run it themselves."""
    return [str(paths().unpacked / "usr/bin/docker"), "--host", f"unix://{paths().docker_socket}"]


def bridge_address() -> str:
    """This host as the lab's containers reach it."""
    shown = lab.docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    return shown.stdout.strip() or "127.0.0.1"
