"""What this machine gives to a build: local wheels, a CA bundle, pip's options, proxies, as it is configured."""

import ast
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from nimctl.core.command import run

_PORT = re.compile(r"\d+/")
# Options of pip that mean the same inside a build; paths and credentials files of the host do not.
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "timeout", "default-timeout", "retries", "proxy")


@dataclass(frozen=True)
class Inputs:
    """What this machine offers a build: a folder of wheels, a CA bundle and pip's options (names without dashes)."""

    wheels: Path | None = None
    ca: Path | None = None
    pip: Mapping[str, str] | None = None


def detect(env: Mapping[str, str]) -> Inputs:
    """Wheels, CA bundle and index options as this machine's pip and TLS settings have them; nothing is required.

    `env` is the process environment. pip's own precedence is kept: environment, then its files.
    """
    options = _pip_options(env)
    named = [
        options.get("cert"),
        *(env.get(name) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")),
    ]
    ca = next((Path(path) for path in named if path and Path(path).is_file()), None)
    folders = [Path(word.removeprefix("file://")) for word in options.get("find-links", "").split()]
    wheels = next((folder for folder in folders if folder.is_dir() and any(folder.glob("*.whl"))), None)
    pip = {name: _reachable(options[name]) for name in _PIP_OPTIONS if _reachable(options.get(name, ""))}
    return Inputs(wheels, ca, pip or None)


def write_pip_config(folder: Path, options: Mapping[str, str] | None) -> Path | None:
    """A pip configuration file for the build's `pip` secret; index addresses may hold a password, hence the mode."""
    if not options:
        return None
    path = folder / "pip.conf"
    path.touch(mode=0o600)
    path.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))
    return path


def write_proxies(folder: Path, env: Mapping[str, str]) -> Path | None:
    """Shell that exports the proxies of `env`, for the build's `proxy` secret: a proxy's address may hold a password.

    Each under both names, because apt reads the lower-case ones alone; those win, as they do on most hosts.
    """
    found = {name: env.get(name.lower(), env.get(name, "")) for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")}
    if not any(found.values()):
        return None
    path = folder / "proxy.sh"
    path.touch(mode=0o600)
    lines = [f"export {one}={shlex.quote(value)}\n" for name, value in found.items() for one in (name, name.lower())]
    path.write_text("".join(lines))
    return path


def _pip_options(env: Mapping[str, str]) -> dict[str, str]:
    """pip's effective options for `pip install`, as pip itself reports them; of the environment alone without a pip."""
    found: dict[str, tuple[int, str]] = {}
    listed = run([sys.executable, "-m", "pip", "config", "list"], timeout=20.0, env=env)
    for line in listed.stdout.splitlines():
        section, _, rest = line.partition(".")
        name, _, value = rest.partition("=")
        rank = {"global": 1, "install": 2}.get(section, 0)
        if rank >= found.get(name, (1, ""))[0]:
            found[name] = (rank, str(ast.literal_eval(value)))
    named = {
        key.removeprefix("PIP_").lower().replace("_", "-"): value
        for key, value in env.items()
        if key.startswith("PIP_")
    }
    return {name: value for name, (_, value) in found.items()} | {name: value for name, value in named.items() if value}


def _reachable(value: str) -> str:
    """The words of an option that mean something inside a build: no address on this machine's own disk."""
    return " ".join(_quoted(word) for word in value.split() if not word.startswith("file:"))


def _quoted(word: str) -> str:
    """An address whose password is written as addresses write it: pip masks no other, and prints it in its errors."""
    scheme, mark, rest = word.partition("://")
    login, at, place = rest.rpartition("@")
    user, _, password = login.partition(":")
    if not (mark and at) or "/" in user or _PORT.match(password):  # no login: the sign stands in the path
        return word
    secret = f":{quote(unquote(password), safe='')}" if password else ""
    return f"{scheme}://{quote(unquote(user), safe='')}{secret}@{place}"
