"""The `docker run` line, word by word: it is what users compare with NVIDIA's pages and paste into their scripts."""

import csv
import shlex
from pathlib import Path

from nimctl import __version__
from nimctl.launch.plan import docker_run_line
from tests.unit.launch.launch_hosts import asked, gpus, host, plan

LABELS = """\
  --label io.nimctl.run={name} \\
  --label io.nimctl.kind={kind} \\
  --label io.nimctl.recipe={name} \\
  --label io.nimctl.served={served} \\
  --label io.nimctl.host=127.0.0.1 \\
  --label io.nimctl.port=8000 \\
  --label io.nimctl.layout={layout} \\
  --label io.nimctl.version={version} \\
  --label io.nimctl.cache=/data/nim \\
"""

HARDENED = """\
  --user 1000:0 \\
  --cap-drop ALL \\
  --security-opt no-new-privileges \\
  --read-only \\
  --tmpfs /tmp:rw,exec,nosuid,nodev,size=2147483648,mode=1777 \\
"""


def labels(name: str, kind: str, served: str, layout: str = "") -> str:
    lines = LABELS if layout else LABELS.replace("  --label io.nimctl.layout={layout} \\\n", "")
    lines += "  --label io.nimctl.weights=builtin://demo \\\n" if kind == "ours" else ""
    return lines.format(name=name, kind=kind, served=served, layout=layout, version=__version__)


DEMO_NAMES = "moonshotai/kimi-k2.5,moonshotai/kimi-k2.5-turbo,demo"


def test_demo_on_a_host_without_gpu() -> None:
    assert docker_run_line(plan("demo")) == (
        "docker run --detach \\\n"
        "  --name=demo \\\n"
        + HARDENED
        + "  --shm-size=1GB \\\n"
        + "  -e NIM_RECIPE=demo \\\n"
        + "  -e NIM_GPUS=none \\\n"
        + "  -v /data/nim:/opt/nim/.cache \\\n"
        + "  -p 127.0.0.1:8000:8000 \\\n"
        + "  --stop-timeout 45 \\\n"
        + labels("demo", "ours", DEMO_NAMES, "tp1-pp1")
        + "  registry.example/nimctl/cuda:1"
    )


def test_demo_on_two_gpus_through_cdi() -> None:
    line = docker_run_line(plan("demo", host(*gpus(2), cdi=("0", "1", "all"))))
    assert line == (
        "docker run --detach \\\n"
        "  --name=demo \\\n"
        "  --device nvidia.com/gpu=all \\\n"
        + HARDENED
        + "  --shm-size=1GB \\\n"
        + "  -e NIM_RECIPE=demo \\\n"
        + "  -v /data/nim:/opt/nim/.cache \\\n"
        + "  -p 127.0.0.1:8000:8000 \\\n"
        + "  --stop-timeout 45 \\\n"
        + labels("demo", "ours", DEMO_NAMES, "tp2-pp1")
        + "  registry.example/nimctl/cuda:1"
    )


def test_demo_on_eight_gpus_through_the_nvidia_runtime() -> None:
    line = docker_run_line(plan("demo", host(*gpus(8), runtime=True, hook=True)))
    assert line == (
        "docker run --detach \\\n"
        "  --name=demo \\\n"
        "  --runtime=nvidia \\\n"
        "  --gpus all \\\n"
        + HARDENED
        + "  --shm-size=1GB \\\n"
        + "  -e NIM_RECIPE=demo \\\n"
        + "  -v /data/nim:/opt/nim/.cache \\\n"
        + "  -p 127.0.0.1:8000:8000 \\\n"
        + "  --stop-timeout 45 \\\n"
        + labels("demo", "ours", DEMO_NAMES, "tp8-pp1")
        + "  registry.example/nimctl/cuda:1"
    )


def test_the_page_of_the_1_7_0_variant_image() -> None:
    """The page's own flags are all there; each that is not on the page is a note of the plan."""
    made = plan("kimi-k2.5-nim", host(*gpus(8), runtime=True, hook=True), secrets_present=("NGC_API_KEY",))
    assert docker_run_line(made) == (
        "docker run --detach \\\n"
        "  --name=kimi-k2.5-nim \\\n"
        "  --runtime=nvidia \\\n"
        "  --gpus all \\\n"
        "  --user 1000:0 \\\n"
        "  --security-opt no-new-privileges \\\n"
        f"  --shm-size={_shm('kimi-k2.5-nim')} \\\n"
        "  -e NGC_API_KEY \\\n"
        "  -v /data/nim:/opt/nim/.cache \\\n"
        "  -p 127.0.0.1:8000:8000 \\\n"
        "  --stop-timeout 45 \\\n"
        + labels("kimi-k2.5-nim", "nim", "moonshotai/kimi-k2.5")
        + "  nvcr.io/nim/moonshotai/kimi-k2.5:1.7.0-variant"
    )


def test_the_page_of_the_turbo_image() -> None:
    made = plan("kimi-k2.5-turbo", host(*gpus(8), hook=True), secrets_present=("NGC_API_KEY",), uid=0)
    assert docker_run_line(made) == (
        "docker run --detach \\\n"
        "  --name=kimi-k2.5-turbo \\\n"
        "  --gpus all \\\n"
        "  --security-opt no-new-privileges \\\n"
        f"  --shm-size={_shm('kimi-k2.5-turbo')} \\\n"
        "  -e NGC_API_KEY \\\n"
        "  -v /data/nim:/opt/nim/.cache \\\n"
        "  -p 127.0.0.1:8000:8000 \\\n"
        "  --stop-timeout 45 \\\n"
        + labels("kimi-k2.5-turbo", "nim", "moonshotai/kimi-k2.5-turbo")
        + "  nvcr.io/nim/moonshotai/kimi-k2.5-turbo:1.0.0"
    )


def _shm(name: str) -> str:
    """32 GiB is written as on the page; another figure of the recipe in bytes."""
    shm = asked(name).recipe.shm_bytes  # type: ignore[union-attr]
    return "32GB" if shm == 32 * 2**30 else str(shm)


def test_a_list_of_gpus_keeps_its_quotes_through_the_shell() -> None:
    line = docker_run_line(plan("demo", host(*gpus(4), hook=True), gpus="0,3"))
    words = shlex.split(line.replace("\\\n", " "))
    assert words[words.index("--gpus") + 1] == '"device=0,3"'


def test_the_runtime_without_the_hook_learns_its_gpus_from_a_variable() -> None:
    """Docker itself needs the hook for `--gpus`: "could not select device driver" without it."""
    words = shlex.split(docker_run_line(plan("demo", host(*gpus(4), runtime=True))).replace("\\\n", " "))
    assert "--runtime=nvidia" in words and "--gpus" not in words
    assert "NVIDIA_VISIBLE_DEVICES=all" in words
    some = docker_run_line(plan("demo", host(*gpus(4), runtime=True), gpus="0,3"))
    assert "-e NVIDIA_VISIBLE_DEVICES=0,3 " in some


def test_a_key_file_that_is_gone_is_refused_instead_of_made_as_a_folder() -> None:
    made = plan("kimi-k2.5", host(*gpus(8), hook=True), secrets_present=("HF_TOKEN",), secrets_dir=Path('/run/a,"b'))
    words = shlex.split(docker_run_line(made).replace("\\\n", " "))
    (fields,) = csv.reader([words[words.index("--mount") + 1]])
    source = 'source=/run/a,"b/kimi-k2.5/HF_TOKEN'
    assert fields == ["type=bind", source, "target=/run/secrets/HF_TOKEN", "readonly"]
    assert words.count("-v") == 1


def test_awkward_values_survive_the_shell() -> None:
    made = plan(
        "demo",
        env=(("GREETING", "it's $HOME; `id`"),),
        engine_args=("--override-generation-config", '{"temperature": 0.5}'),
        model_path="/data/my model",
    )
    words = shlex.split(docker_run_line(made).replace("\\\n", " "))
    assert "GREETING=it's $HOME; `id`" in words
    assert words[-2:] == ["--override-generation-config", '{"temperature": 0.5}']
    assert "/data/my model:/opt/nim/model:ro" in words


def test_an_ipv6_address_is_published_in_brackets() -> None:
    assert "-p '[::1]:8000:8000'" in docker_run_line(plan("demo", host="::1"))
