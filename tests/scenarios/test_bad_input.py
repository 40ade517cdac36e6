"""Bad input gets one clear error: id, cause, fix, exit code. Nothing is started, nothing is lost.

The real command line on real and simulated hosts; what needs a container or an engine that dies is in tests/faults and
in tests/e2e/test_running_container.py.
"""

import http.server
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Nimctl, private_environment
from tests.lib import lab as the_lab
from tests.lib.mounts import tmpfs
from tests.unit.entrypoint.service import free_port

Host = Callable[[str], dict[str, str]]


@pytest.fixture
def gpu_host(home: Path, tmp_path: Path) -> Host:
    """A host with simulated GPUs and without Docker: the real pynvml over the double."""
    folder = tmp_path / "nvml"
    folder.mkdir()

    def make(profile: str) -> dict[str, str]:
        base = private_environment(the_lab.double_environment(profile, folder), home)
        return {**base, "DOCKER_HOST": f"unix://{home}/no-such.sock"}

    return make


def assert_clear(done: Any, error_id: str, code: int) -> dict[str, Any]:
    """The one JSON document carries the error whole, stderr shows it to people, and the code is the family's."""
    error: dict[str, Any] = done.document["error"]
    assert (error["id"], done.code, error["exit_code"]) == (error_id, code, code), done.stderr
    assert error["cause"] and error["fix"]
    assert f"error[{error_id}]" in done.stderr and "Traceback" not in done.stderr
    return error


def test_an_unknown_model_is_answered_with_the_models_that_exist(nimctl: Nimctl, bare_host: dict[str, str]) -> None:
    error = assert_clear(nimctl("run", "kimi-k3", "--json", env=bare_host), "model-unknown", 2)
    assert "kimi-k2.5" in error["cause"]


def test_a_folder_without_a_checkpoint(nimctl: Nimctl, bare_host: dict[str, str], tmp_path: Path) -> None:
    assert_clear(nimctl("run", str(tmp_path), "--json", env=bare_host), "weights-missing", 6)


@pytest.mark.parametrize("spec", ["9", "0", "0,7", "device=GPU-00000000", "two", "0,0"])
def test_a_gpu_spec_that_this_host_cannot_meet(nimctl: Nimctl, gpu_host: Host, spec: str) -> None:
    done = nimctl("run", "demo", "--gpus", spec, "--runtime", "process", "--json", env=gpu_host("2xH200"))
    assert_clear(done, "gpu-spec-invalid", 2)


def test_mixed_gpus_are_named_with_a_choice_that_works(nimctl: Nimctl, gpu_host: Host) -> None:
    host = gpu_host("mixed")
    done = nimctl("run", "demo", "--gpus", "all", "--runtime", "process", "--dry-run", "--json", env=host)
    error = assert_clear(done, "gpus-mixed", 7)
    assert "H100" in error["message"] and "H200" in error["message"]
    choice = error["fix"].split("--gpus ")[1].split()[0]
    again = nimctl("run", "demo", "--gpus", choice, "--runtime", "process", "--dry-run", "--json", env=host)
    assert again.code == 0, again.stderr


def test_a_model_that_cannot_fit_is_refused_with_the_arithmetic(nimctl: Nimctl, gpu_host: Host) -> None:
    done = nimctl("run", "kimi-k2.5", "--runtime", "process", "--dry-run", "--json", env=gpu_host("2xH200"))
    error = assert_clear(done, "no-layout", 7)
    assert "weights of 278.0 GiB" in error["cause"] and "too little" in error["cause"]


def test_a_host_without_gpus_refuses_a_model_that_needs_them(nimctl: Nimctl, bare_host: dict[str, str]) -> None:
    for more in ((), ("--gpus", "all")):
        assert_clear(nimctl("run", *more, "--runtime", "process", "--json", env=bare_host), "gpu-missing", 3)


def test_gpus_that_were_asked_for_are_never_replaced_by_the_cpu(nimctl: Nimctl, bare_host: dict[str, str]) -> None:
    done = nimctl("run", "demo", "--gpus", "all", "--runtime", "process", "--json", env=bare_host)
    assert_clear(done, "gpu-missing", 3)


def test_a_port_in_use_is_found_before_anything_starts(nimctl: Nimctl, bare_host: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = nimctl("run", "demo", "--runtime", "process", "--port", port, "--json", env=bare_host)
    assert_clear(done, "port-in-use", 9)
    assert not Path(bare_host["NIMCTL_CACHE"]).exists()


def test_no_docker(nimctl: Nimctl, bare_host: dict[str, str]) -> None:
    error = assert_clear(nimctl("run", "demo", "--json", env=bare_host), "docker-missing", 3)
    assert "--runtime process" in error["fix"]


@contextmanager
def daemon(folder: Path, answers: dict[str, Any] | None) -> Iterator[str]:
    """Something on a Docker socket: an engine with these answers, or (None) one that accepts and stays silent."""
    path = folder / "docker.sock"
    if answers is None:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(path))
            silent.listen(16)
            yield f"unix://{path}"
        return

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.split("?")[0].rsplit("/", 1)[-1]
            body = b"OK" if name == "_ping" else json.dumps(answers.get(name, {})).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: Any) -> None:
            return

    class UnixServer(http.server.ThreadingHTTPServer):
        address_family = socket.AF_UNIX

        def server_bind(self) -> None:
            self.socket.bind(self.server_address)

    server = UnixServer(str(path), Handler)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"unix://{path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_a_docker_engine_that_is_too_old(nimctl: Nimctl, bare_host: dict[str, str], tmp_path: Path) -> None:
    old = {"version": {"Version": "20.10.24", "ApiVersion": "1.41"}, "info": {"ServerVersion": "20.10.24"}}
    with daemon(tmp_path, old) as address:
        done = nimctl("run", "demo", "--json", env={**bare_host, "DOCKER_HOST": address})
    assert_clear(done, "docker-too-old", 3)


def test_a_docker_daemon_that_hangs(nimctl: Nimctl, bare_host: dict[str, str], tmp_path: Path) -> None:
    with daemon(tmp_path, None) as address:
        done = nimctl("run", "demo", "--json", env={**bare_host, "DOCKER_HOST": address}, timeout=30)
    assert_clear(done, "docker-hangs", 3)


@pytest.mark.lab
def test_no_toolkit(nimctl: Nimctl, host: Host) -> None:
    """GPUs are there, Docker is there, and nothing that brings the one into the other."""
    gpus = host("2xH200")
    plain = host("none")
    bare = {**plain, **{k: gpus[k] for k in ("LD_LIBRARY_PATH", "NVML_DOUBLE_JSON", "NIMCTL_IMAGES_CUDA")}}
    facts = nimctl("doctor", "demo", "--json", "--only", "docker", env=bare)
    failed = {f["id"] for f in facts.document["findings"] if f["verdict"] == "fail"}
    assert failed == {"toolkit-missing"} and facts.code == 3
    assert_clear(nimctl("run", "demo", "--gpus", "all", "--json", env=bare), "gpu-runtime-missing", 3)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to make a folder of another user")
def test_a_cache_that_the_container_cannot_write(nimctl: Nimctl, bare_host: dict[str, str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    os.chown(cache, 4321, 4321)
    cache.chmod(0o755)
    done = nimctl("doctor", "demo", "--cache", str(cache), "--only", "cache", "--json", env=bare_host)
    finding = next(f for f in done.document["findings"] if f["verdict"] == "fail")
    assert (finding["id"], done.code) == ("cache-not-writable", 3)
    assert f"nimctl cache init {cache}" in finding["fix"]
    assert nimctl("cache", "init", str(cache), "--json", env=bare_host).code == 0
    again = nimctl("doctor", "demo", "--cache", str(cache), "--only", "cache", "--json", env=bare_host)
    assert again.code == 0, again.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a small filesystem")
def test_a_cache_on_a_full_disk(nimctl: Nimctl, bare_host: dict[str, str], tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=1m") as small:
        port = str(free_port())
        arguments = ("run", "demo", "--runtime", "process", "--cache", str(small), "--port", port, "--json")
        assert_clear(nimctl(*arguments, env=bare_host), "disk-full", 9)


def test_a_missing_key_for_an_nvidia_image(nimctl: Nimctl, gpu_host: Host) -> None:
    done = nimctl("doctor", "kimi-k2.5-turbo", "--only", "key", "--json", env=gpu_host("8xH200"))
    finding = next(f for f in done.document["findings"] if f["verdict"] == "fail")
    assert (finding["id"], done.code) == ("key-missing", 3)
    assert "NGC_API_KEY" in finding["title"] + finding["cause"] + finding["fix"]


def test_login_without_a_key_and_without_a_terminal(nimctl: Nimctl, bare_host: dict[str, str]) -> None:
    assert_clear(nimctl("login", "--json", env=bare_host, stdin=""), "key-missing", 4)
    assert_clear(nimctl("login", "--password-stdin", "--json", env=bare_host, stdin="\n"), "key-missing", 4)


def test_nvidia_s_key_is_not_sent_to_another_registry(nimctl: Nimctl, bare_host: dict[str, str]) -> None:
    env = {**bare_host, "NGC_API_KEY": "nvapi-not-for-everybody-0123"}
    error = assert_clear(nimctl("login", "127.0.0.1:9", "--json", env=env, stdin=""), "key-missing", 4)
    assert "nvcr.io only" in error["cause"]


def test_a_run_that_does_not_exist(nimctl: Nimctl, bare_host: dict[str, str]) -> None:
    for verb in ("status", "logs", "stop"):
        assert_clear(nimctl(verb, "nobody", "--json", env=bare_host), "run-unknown", 2)


@pytest.mark.parametrize(
    "text", ["port: many\n", "prot: 8000\n", "- a list\n", "port: [1\n", "images: {registry: [x]}\n"]
)
def test_a_configuration_file_that_is_wrong(nimctl: Nimctl, bare_host: dict[str, str], text: str) -> None:
    Path(bare_host["HOME"], "nimctl.yaml").write_text(text)  # commands run in the home folder
    done = nimctl("run", "demo", "--runtime", "process", "--dry-run", "--json", env=bare_host)
    assert "nimctl.yaml" in json.dumps(assert_clear(done, "config-invalid", 2))


def test_usage_errors_end_with_2_and_a_hint(nimctl: Nimctl, bare_host: dict[str, str]) -> None:
    for arguments in (("run", "--port", "99999"), ("fly",), ("run", "--nonsense")):
        done = nimctl(*arguments, env=bare_host)
        assert done.code == 2 and "Usage:" in done.stderr and "Traceback" not in done.stderr
        as_json = nimctl(*arguments, "--json", env=bare_host)
        assert (as_json.code, as_json.error_id) == (2, "usage") and as_json.document["error"]["message"]


def test_saved_facts_that_are_none(nimctl: Nimctl, bare_host: dict[str, str], tmp_path: Path) -> None:
    for text in ("{}", "not json", '{"schema": "nimctl.facts/1", "nimctl": 3}'):
        (tmp_path / "facts.json").write_text(text)
        done = nimctl("doctor", "--facts", str(tmp_path / "facts.json"), "--json", env=bare_host)
        assert_clear(done, "facts-invalid", 2)


def test_a_build_of_an_image_that_does_not_exist(nimctl: Nimctl, bare_host: dict[str, str]) -> None:
    assert_clear(nimctl("build", "rocm", "--json", env=bare_host), "usage", 2)
