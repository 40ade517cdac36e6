"""A whole build with a docker command of our own: what it hands over, what it reports, what it leaves behind."""

import os
import signal
from pathlib import Path

import pytest

from nimctl import images
from nimctl.core.errors import NimctlError
from nimctl.images.client import lines_of, started
from tests.unit.images.build_hosts import configure_pip, put_docker


def test_a_build_hands_over_its_inputs_and_reports_the_digest(machine: dict[str, str], tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "torch-2.13.0-py3-none-any.whl").touch()
    (tmp_path / "bundle.pem").touch()
    configure_pip(
        machine,
        tmp_path,
        f"[global]\nfind-links = {wheels}\ncert = {tmp_path}/bundle.pem\n"
        "index-url = https://user:canary@mirror.example/simple\nextra-index-url = file:///srv/simple\n",
    )
    seen = tmp_path / "seen"
    put_docker(
        machine,
        f"""env | sort > {seen}; echo "$*" >> {seen}; cat "$NIMCTL_BUILD_PIP" "$NIMCTL_BUILD_PROXY" >> {seen}
        while [ $# -gt 0 ]; do [ "$1" = --metadata-file ] && meta=$2; shift; done
        echo '{{"cpu": {{"containerimage.digest": "sha256:abc"}}}}' > "$meta"
        printf '#1 [internal] load\\n#1 DONE 0.0s\\n#2 [a 1/2] RUN x\\n#2 CACHED\\n'
        printf '#3 [a 2/2] RUN y\\n#3 DONE 1.5s\\n'""",
    )
    lines: list[str] = []
    built = images.build("cpu", env={**machine, "https_proxy": "http://proxy.example:3128"}, on_line=lines.append)
    assert (built.tag, built.digest) == (images.local_tag("cpu"), "sha256:abc")
    assert (built.cached, built.rebuilt) == (("[a 1/2] RUN x",), ("[a 2/2] RUN y",))
    assert lines[-1] == "#3 DONE 1.5s"
    text = seen.read_text()
    assert f"NIMCTL_BUILD_WHEELS={wheels}" in text
    assert f"NIMCTL_BUILD_CA={tmp_path}/bundle.pem" in text
    assert "BUILDX_NO_DEFAULT_ATTESTATIONS=1" in text
    assert "export HTTPS_PROXY=http://proxy.example:3128\nexport https_proxy=http://proxy.example:3128\n" in text
    assert "index-url = https://user:canary@mirror.example/simple" in text
    assert "file:" not in text
    command = next(line for line in text.splitlines() if line.startswith("buildx bake"))
    assert "canary" not in command and "proxy.example" not in command


def test_the_pip_secret_is_gone_after_the_build(machine: dict[str, str], tmp_path: Path) -> None:
    configure_pip(machine, tmp_path, "[global]\nindex-url = https://user:canary@mirror.example/simple\n")
    where = tmp_path / "where"
    put_docker(machine, f'echo "$NIMCTL_BUILD_PIP" > {where}; stat -c %a "$NIMCTL_BUILD_PIP" >> {where}')
    images.build("cpu", env=machine)
    path, mode = where.read_text().split()
    assert mode == "600"
    assert not Path(path).exists()


def test_a_client_that_is_left_running_is_ended(machine: dict[str, str], tmp_path: Path) -> None:
    put_docker(machine, f"echo $$ > {tmp_path}/pid; echo started; exec sleep 600")

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.build("cpu", env=machine, on_line=stop)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_silent_client_is_stopped(machine: dict[str, str], tmp_path: Path) -> None:
    with (
        pytest.raises(NimctlError, match="wrote nothing") as caught,
        started(["sh", "-c", "echo one; exec sleep 600"], machine, tmp_path) as process,
    ):
        lines = lines_of(process, stall_s=0.5)
        assert next(lines) == "one"
        next(lines)
    assert caught.value.id == "image-build-failed"
    assert process.returncode == -signal.SIGTERM
