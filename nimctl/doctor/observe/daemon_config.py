"""Docker's configuration file, of which only what matters here is kept.

Its keys: https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nimctl.core.facts import DaemonConfig, DockerFacts
from nimctl.doctor.observe.files import read, regular

_STANDARD = "etc/docker/daemon.json"
# https://github.com/canonical/docker-snap#changing-the-default-settings
_SNAP = "var/snap/docker/current/config/daemon.json"
_STANDARD_SOCKETS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
_ROOTLESS_SOCKET = re.compile(r"unix:///(?:var/)?run/user/(\d+)/docker\.sock")
_CGROUP_DRIVER = "native.cgroupdriver="
_LARGEST = 1_000_000
# Names of processes that are looked at to find the daemon.
_MOST_PROCESSES = 50_000


def look_at_daemon_config(docker: DockerFacts, root: Path = Path("/")) -> DaemonConfig | None:
    """The configuration file of the daemon behind this endpoint, where it is a daemon of this host.

    None where it is not known which file that is: another machine, Docker Desktop, or Podman, which has none. What a
    running `dockerd` was told on its command line counts first; else the usual places. Never raises.
    """
    if docker.endpoint is None or docker.kind in ("desktop", "podman", "other"):
        return None
    path = _told_to_daemon(docker.endpoint, root) or _usual_place(docker, root)
    return read_daemon_config(path) if path else None


def _usual_place(docker: DockerFacts, root: Path) -> Path | None:
    if docker.kind == "snap":
        return root / _SNAP
    if docker.endpoint in _STANDARD_SOCKETS:
        return root / _STANDARD
    if user := _ROOTLESS_SOCKET.fullmatch(docker.endpoint or ""):
        home = _home(user[1], root)
        return root / home.lstrip("/") / ".config/docker/daemon.json" if home else None
    return None


def _home(uid: str, root: Path) -> str | None:
    try:
        lines = (root / "etc/passwd").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    users = (line.split(":") for line in lines)
    return next((fields[5] for fields in users if len(fields) > 5 and fields[2] == uid), None)


def _told_to_daemon(endpoint: str, root: Path) -> Path | None:
    """`--config-file` of the `dockerd` that listens on `endpoint`; None where none says so."""
    for words in _daemons(root):
        named = [value for flag, value in _flags(words) if flag == "--config-file"]
        if not named:
            continue
        path = root / named[-1].lstrip("/")
        hosts = [value for flag, value in _flags(words) if flag in ("-H", "--host")]
        if endpoint in hosts or endpoint in _hosts_in(path):
            return path
    return None


def _daemons(root: Path) -> Iterator[list[str]]:
    """The command line of each running dockerd of root or of this user."""
    try:
        processes = [p for p in (root / "proc").iterdir() if p.name.isdigit()][:_MOST_PROCESSES]
    except OSError:
        return
    for process in processes:
        try:
            if process.stat().st_uid not in (0, os.getuid()):
                continue  # anybody may call a program dockerd, and name any file on its command line
        except OSError:
            continue  # it has ended
        if read(process / "comm") == "dockerd" and (line := read(process / "cmdline")):
            yield line.split("\0")


def _flags(words: list[str]) -> Iterator[tuple[str, str]]:
    """Flags with their values, as in `-H X`, `--host X` and `--host=X`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--") and "=" in word:
            flag, _, value = word.partition("=")
            yield flag, value
        elif word.startswith("-"):
            yield word, following


def _hosts_in(path: Path) -> list[str]:
    try:
        data = json.loads(regular(path, _LARGEST))
    except (OSError, ValueError, RecursionError):
        return []
    hosts = data.get("hosts") if isinstance(data, dict) else None
    return [str(host) for host in hosts] if isinstance(hosts, list) else []


def read_daemon_config(path: Path) -> DaemonConfig:
    """One file: that it is missing or why it cannot be read, else its keys that matter. Never raises."""
    where = str(path)
    try:
        text = regular(path, _LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return DaemonConfig(where, exists=False)
    except OSError as error:
        return DaemonConfig(where, problem=None if isinstance(error, PermissionError) else str(error.strerror))
    except ValueError as error:
        return DaemonConfig(where, exists=True, problem=" ".join(str(error).split()))
    digest = hashlib.sha256(text.encode()).hexdigest()
    repeated: list[str] = []

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
        return dict(pairs)

    if not text.strip():
        return DaemonConfig(where, exists=True, text_hash=digest)  # dockerd takes an empty file for none
    try:
        data = json.loads(text, object_pairs_hook=table)
        if not isinstance(data, dict):
            raise ValueError("it is not a JSON object")
    except (ValueError, RecursionError) as error:
        return DaemonConfig(where, exists=True, text_hash=digest, problem=" ".join(str(error).split()))
    return _keys(where, digest, tuple(sorted(set(repeated))), data)


def _keys(where: str, digest: str, repeated: tuple[str, ...], data: Mapping[str, Any]) -> DaemonConfig:
    options = [str(option) for option in data.get("exec-opts") or ()] if _is_list(data.get("exec-opts")) else []
    drivers = [o.removeprefix(_CGROUP_DRIVER) for o in options if o.startswith(_CGROUP_DRIVER)]
    runtimes, features = data.get("runtimes"), data.get("features")
    return DaemonConfig(
        where,
        exists=True,
        text_hash=digest,
        repeated=repeated,
        hosts=bool(data.get("hosts")),
        runtimes=tuple(sorted(map(str, runtimes))) if isinstance(runtimes, Mapping) else None,
        default_runtime=_text(data.get("default-runtime")),
        cdi=_truth(features.get("cdi")) if isinstance(features, Mapping) else None,
        cgroup_driver=drivers[-1] if drivers else None,
        live_restore=_truth(data.get("live-restore")),
        default_shm_size=_text(data.get("default-shm-size")),
        default_ulimits=_ulimits(data.get("default-ulimits")),
        userns_remap=bool(data["userns-remap"]) if "userns-remap" in data else None,
        proxies=bool(data["proxies"]) if "proxies" in data else None,
    )


def _ulimits(value: Any) -> Mapping[str, tuple[int, ...]] | None:
    """Name to (soft, hard), of `{"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}}`."""
    if not isinstance(value, Mapping):
        return None
    limits: dict[str, tuple[int, ...]] = {}
    for name, limit in value.items():
        pair = [limit.get(kind) for kind in ("Soft", "Hard")] if isinstance(limit, Mapping) else []
        numbers = tuple(number for number in pair if type(number) is int)
        if numbers and len(numbers) == len(pair):
            limits[str(name)] = numbers
    return limits


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
