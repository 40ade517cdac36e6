"""The lab's image registry: Debian's docker-registry behind a front with token authentication, on 127.0.0.1.

The front (front.py) is a process of its own; this module starts both, says where they are and pushes small images.
Who may pull what is in `registry/config.json` of the state folder, read again at every request:

    key            the password of user $oauthtoken
    repositories   [pattern, situation] in order, first match counts; `set_situation` writes it
    faults         what goes wrong with blobs and tags; faults.py writes them

Situations: `open` (anyone may pull) · `key` (only with the key) · `payment-required` (402) · `terms` (403, DENIED) ·
`organisation` (the same 403, which is all that nvcr.io says) · `hidden` (a token without rights, as Docker Hub gives) ·
`rate-limited` (429, Retry-After) · `unavailable` (503) · `slow` (no answer) · `unknown-kind` (a strange media type) ·
`renewed` (every second token has expired) · `late`, `early` (all have, or are not valid yet). A wrong key is a 401
everywhere, an unknown image 404. Who logs in as front.IDENTITY_USER gets an identity token.
"""

import contextlib
import hashlib
import http.client
import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import engine
from .debian import install_on_host
from .paths import Paths
from .push import USER, Registry, push_image
from .steps import locked, run, running_pid, start_daemon, step, stop_daemon, wait_until

PORT = 5055  # tried first, so that image names stay the same between runs
FRONT = Path(__file__).with_name("front.py")
# By name, so that a test can be read without a set-up; `nim/` is what nvcr.io does.
REPOSITORIES = [["open/*", "open"], ["unpaid/*", "payment-required"], ["terms/*", "terms"], ["busy/*", "rate-limited"],
                ["down/*", "unavailable"], ["private/*", "organisation"], ["hidden/*", "hidden"], ["slow/*", "slow"],
                ["nim/terms/*", "terms"], ["odd/*", "unknown-kind"], ["renewed/*", "renewed"],
                ["late/*", "late"], ["early/*", "early"], ["*", "key"]]  # fmt: skip
PUBLISHED = (
    "nim/moonshotai/kimi-k2.5:1.7.0-variant",
    "nim/moonshotai/kimi-k2.5-turbo:1.0.0",
    *(f"{folder}/tiny:1" for folder in ("open", "unpaid", "terms", "busy", "down", "hidden", "renewed")),
)


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
        _start(
            paths, "registry", [paths.unpacked / "usr/bin/docker-registry", "serve", paths.registry / "registry.yml"]
        )
        # -I: the front must not pick up modules of the folder it lies in
        _start(paths, "front", [sys.executable, "-I", FRONT, paths.registry / "config.json"])
        wait_until(
            lambda: answers(paths),
            what="the registry",
            seconds=20,
            log=paths.logs / "front.log",
            alive=lambda: _alive(paths),
        )
    for image in PUBLISHED:
        push_image(info(paths), image)


def stop_registry(paths: Paths) -> bool:
    return any([stop_daemon(paths.run / "front.pid"), stop_daemon(paths.run / "registry.pid")])


def answers(paths: Paths) -> bool:
    """Whether GET /v2/ is answered with the token challenge."""
    if not (_alive(paths) and (paths.registry / "config.json").exists()):
        return False
    connection = http.client.HTTPConnection("127.0.0.1", _config(paths)["port"], timeout=engine.PATIENCE)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 401
    except OSError:
        return False
    finally:
        connection.close()


def set_situation(paths: Paths, pattern: str, situation: str) -> None:
    """Make repositories of this fnmatch pattern answer so from the next request on. The newest rule counts."""
    with configuration(paths) as config:
        rules = [rule for rule in config["repositories"] if rule[0] != pattern]
        config["repositories"] = [[pattern, situation], *rules]


def reset_situations(paths: Paths) -> None:
    with configuration(paths) as config:
        config["repositories"] = REPOSITORIES


@contextlib.contextmanager
def configuration(paths: Paths) -> Iterator[dict[str, Any]]:
    """The front's configuration, to be changed; what is made of it is written at the end, and nobody else meanwhile."""
    with locked(paths.registry / "config.lock"):
        config = _config(paths)
        yield config
        _write_config(paths, config)


def docker_config(paths: Paths, folder: Path, *, key: str | None = None) -> Path:
    """Make `folder` a DOCKER_CONFIG with buildx, logged in with `key` when one is given."""
    engine.write_client_configuration(folder, paths)
    if key is not None:
        argv = ("--config", folder, "login", "-u", USER, "--password-stdin", info(paths).address)
        engine.docker(paths, *argv, text_in=key, timeout=30)
    return folder


def _start(paths: Paths, name: str, argv: list[str | Path]) -> None:
    env = {"PATH": os.environ.get("PATH", engine.DEFAULT_PATH)}
    start_daemon(argv, env=env, pid_file=paths.run / f"{name}.pid", log=paths.logs / f"{name}.log")


def _alive(paths: Paths) -> bool:
    return all(running_pid(paths.run / f"{name}.pid") is not None for name in ("registry", "front"))


def _config(paths: Paths) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((paths.registry / "config.json").read_text())
    return config


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
        "faults": [],
    }


def _make_certificate(paths: Paths) -> None:
    if (paths.registry / "token.crt").exists():
        return
    install_on_host({"openssl": "openssl"})
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=nimctl-lab",
         "-keyout", paths.registry / "token.key", "-out", paths.registry / "token.crt"])  # fmt: skip


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _source_digest() -> str:
    return hashlib.sha256(FRONT.read_bytes() + Path(__file__).read_bytes()).hexdigest()
