"""The lab's own Docker Engine: containerd and dockerd on private sockets, folders and bridge.

A user's engine on the same machine is never asked and never touched: `DOCKER_HOST` of the lab names the private socket,
containerd is our own, iptables is left alone (see network.py). CDI is on, with the lab's folder instead of /etc/cdi.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

from .network import ensure_bridge, remove_bridge, way_out_mtu
from .paths import Paths
from .steps import LabError, run, running_pid, start_daemon, step, stop_daemon, wait_until

DEFAULT_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE = 5.0  # seconds for an answer of dockerd on a busy machine
LEFTOVERS_KEPT = "2h"
CACHE_KEPT = "10GB"
_KEPT = ("home", "lang", "tmpdir", "http_proxy", "https_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")


def start_engine(paths: Paths) -> None:
    """Have containerd and dockerd running and answering. Raises LabError with the log's last lines."""
    if answers(paths) or _answers_late(paths):
        return
    stop_engine(paths)
    subnet = ensure_bridge(paths)
    _write_configuration(paths, mtu=way_out_mtu(), pool=str(subnet).replace(".0.0/16", ".128.0/17"))
    with step("start containerd"):
        containerd = paths.engine_run / "containerd.pid"
        log = paths.engine_logs / "containerd.log"
        argv: list[str | Path] = [
            paths.unpacked / "usr/bin/containerd",
            "--config",
            paths.engine_run / "containerd.toml",
        ]
        start_daemon(argv, env=daemon_environment(paths), pid_file=containerd, log=log)
        _wait_for_socket(paths.engine_run / "containerd.sock", containerd, log, "containerd")
    with step("start dockerd"):
        dockerd = paths.engine_run / "dockerd.pid"
        log = paths.engine_logs / "dockerd.log"
        argv = [paths.unpacked / "usr/sbin/dockerd", "--config-file", paths.engine_run / "daemon.json"]
        start_daemon(argv, env=daemon_environment(paths), pid_file=dockerd, log=log)
        wait_until(
            lambda: answers(paths), what="dockerd", seconds=60, log=log, alive=lambda: running_pid(dockerd) is not None
        )
    _write_client_configuration(paths.docker_config, paths)


def stop_engine(paths: Paths) -> bool:
    """Stop the containers, dockerd, containerd and the bridge. Returns whether something was running."""
    if answers(paths):
        ids = docker(paths, "ps", "-q").split()
        if ids:
            docker(paths, "stop", "-t", "5", *ids, timeout=60)
    was_running = [stop_daemon(paths.engine_run / name) for name in ("dockerd.pid", "containerd.pid")]
    _remove_orphans(paths)
    for leftover in ("docker.sock", "containerd.sock", "containerd.sock.ttrpc", "dockerd.own.pid"):
        (paths.engine_run / leftover).unlink(missing_ok=True)
    for folder in ("docker", "containerd", "run"):
        _unmount_below(paths.engine_home / folder)
    remove_bridge(paths)
    return any(was_running)


def answers(paths: Paths) -> bool:
    """Whether dockerd answers a ping within PATIENCE."""
    return paths.docker_socket.exists() and _get(paths.docker_socket, "/_ping") is not None


def _answers_late(paths: Paths) -> bool:
    """Give a daemon that runs the time that a busy machine takes: to start it anew ends everybody's containers."""
    dockerd = paths.engine_run / "dockerd.pid"
    if running_pid(dockerd) is None or not paths.docker_socket.exists():
        return False
    log = paths.engine_logs / "dockerd.log"
    try:
        wait_until(
            lambda: answers(paths), what="dockerd", seconds=30, log=log, alive=lambda: running_pid(dockerd) is not None
        )
    except LabError:
        return False
    return True


def remove_leftovers(paths: Paths) -> None:
    """Delete images that lost their name to a newer build. Young ones may be just what somebody looks at."""
    docker(paths, "image", "prune", "--force", "--filter", f"until={LEFTOVERS_KEPT}", timeout=120)


def reload(paths: Paths, *, nvidia_runtime: bool) -> None:
    """Make dockerd know the `nvidia` runtime or not, as on a host with or without the container toolkit."""
    dockerd = paths.engine_run / "dockerd.pid"
    pid = running_pid(dockerd)
    file = paths.engine_run / "daemon.json"
    config = json.loads(file.read_text())
    if pid is None or ("nvidia" in config["runtimes"]) == nvidia_runtime:
        return
    config["runtimes"] = _runtimes(paths) if nvidia_runtime else {}
    file.write_text(json.dumps(config, indent=1))
    os.kill(pid, signal.SIGHUP)  # dockerd reads `runtimes` again

    def taken_over() -> bool:
        info = _get(paths.docker_socket, "/info")
        return info is not None and ("nvidia" in json.loads(info)["Runtimes"]) == nvidia_runtime

    log = paths.engine_logs / "dockerd.log"
    wait_until(taken_over, what="dockerd", seconds=10, log=log, alive=lambda: running_pid(dockerd) is not None)


def docker(paths: Paths, *args: str | Path, timeout: float = 300, text_in: str | None = None) -> str:
    """Run the lab's docker client and return its stdout; LabError when it fails."""
    argv = [paths.unpacked / "usr/bin/docker", *args]
    return run(argv, env=client_environment(paths), timeout=timeout, text_in=text_in)


def client_environment(paths: Paths) -> dict[str, str]:
    """What a docker client needs to talk to the lab's engine, on top of this process's environment."""
    return {
        **os.environ,
        "DOCKER_HOST": f"unix://{paths.docker_socket}",
        "DOCKER_CONFIG": str(paths.docker_config),
        "PATH": _joined([str(paths.unpacked / "usr/bin"), os.environ.get("PATH", DEFAULT_PATH)]),
    }


def daemon_environment(paths: Paths) -> dict[str, str]:
    """What daemons and their hooks inherit: where things are, and proxies; no key that the caller may have exported."""
    folders = [*paths.binaries, paths.gpus / "toolkit", os.environ.get("PATH", DEFAULT_PATH)]
    kept = {name: value for name, value in os.environ.items() if name.lower() in _KEPT}
    return {**kept, "PATH": _joined(map(str, folders)), "LD_LIBRARY_PATH": _joined(map(str, paths.libraries))}


def write_client_configuration(folder: Path, paths: Paths) -> None:
    """Make `folder` a DOCKER_CONFIG in which nobody is logged in and buildx is found."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(paths.buildx_folder)]}))


def _write_client_configuration(folder: Path, paths: Paths) -> None:
    if not (folder / "config.json").exists():
        write_client_configuration(folder, paths)


def _write_configuration(paths: Paths, *, mtu: int, pool: str) -> None:
    containerd_state = paths.engine_home / "containerd"
    (paths.engine_run / "containerd.toml").write_text(
        "version = 2\n"
        f'root = "{containerd_state}"\n'
        f'state = "{paths.engine_run}/containerd"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\n  address = "{paths.engine_run}/containerd.sock"\n'
    )
    config = {
        "hosts": [f"unix://{paths.docker_socket}"],
        "containerd": f"{paths.engine_run}/containerd.sock",
        "data-root": str(paths.engine_home / "docker"),
        "exec-root": str(paths.engine_run / "docker"),
        "pidfile": str(paths.engine_run / "dockerd.own.pid"),
        "bridge": paths.bridge,
        "mtu": mtu,
        "iptables": False,
        "ip6tables": False,
        "ip-masq": False,
        "default-address-pools": [{"base": pool, "size": 24}],
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "features": {"cdi": True, "containerd-snapshotter": paths.store == "containerd"},
        "cdi-spec-dirs": [str(paths.cdi)],
        "builder": {"gc": {"enabled": True, "defaultKeepStorage": CACHE_KEPT}},
        "runtimes": _runtimes(paths),
    }
    (paths.engine_run / "daemon.json").write_text(json.dumps(config, indent=1))


def _runtimes(paths: Paths) -> dict[str, dict[str, str]]:
    return {"nvidia": {"path": str(paths.gpus / "toolkit" / "nvidia-container-runtime")}}


def _wait_for_socket(path: Path, pid_file: Path, log: Path, what: str) -> None:
    def accepts() -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(str(path)) == 0

    wait_until(accepts, what=what, seconds=30, log=log, alive=lambda: running_pid(pid_file) is not None)


def _get(unix_socket: Path, path: str) -> bytes | None:
    """GET over a Unix socket; None when it cannot be had within PATIENCE or is not a 200."""
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(PATIENCE)
    try:
        connection.sock.connect(str(unix_socket))
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read() if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _remove_orphans(paths: Paths) -> None:
    """Containers and their shims outlive daemons that were killed; nobody else would ever end them."""
    runc_state = paths.engine_run / "docker/runtime-runc/moby"
    for container in sorted(runc_state.glob("*")):
        runc = paths.unpacked / "usr/sbin/runc"
        run(
            [runc, "--root", runc_state, "delete", "--force", container.name], env=daemon_environment(paths), timeout=30
        )
    marker = f"{paths.engine_run}/containerd.sock".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if marker in words and words[0].endswith(b"containerd-shim-runc-v2"):
                os.kill(int(process.name), signal.SIGKILL)


def _unmount_below(folder: Path) -> None:
    """Unmount what dockerd left mounted at or below the folder, innermost first."""
    points = [line.split()[1].replace("\\040", " ") for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((p for p in points if f"{p}/".startswith(f"{folder}/")), reverse=True):
        run(["umount", "-l", point], timeout=30)


def _joined(parts: Iterable[str]) -> str:
    return ":".join(part for part in parts if part)


def remove_state(paths: Paths) -> None:
    """Delete the whole state folder. Only after stop_engine: nothing may be mounted below it."""
    left = [line for line in Path("/proc/mounts").read_text().splitlines() if f" {paths.state}/" in line]
    if left:
        raise LabError(f"{len(left)} mounts are left below {paths.state}", "unmount them and purge again")
    shutil.rmtree(paths.state, ignore_errors=False)
