"""The README does what it says: its first command, and its block for scripts, on a host without Docker and GPU."""

import re
import subprocess

import pytest

from nimctl.core.demo.phrase import ANSWER
from tests.conftest import ROOT, Nimctl
from tests.unit.entrypoint.service import free_port

pytestmark = [pytest.mark.engine]


def blocks() -> list[str]:
    """The code blocks of the README, in order."""
    return re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_first_screen_has_the_two_commands() -> None:
    commands = [line.split("#")[0].strip() for line in blocks()[0].splitlines()]
    assert commands == ["./scripts/demo", "./scripts/test"]


def test_the_demo_answers_a_text_and_an_image_question_and_leaves_nothing_running(
    bare_host: dict[str, str], nimctl: Nimctl
) -> None:
    done = subprocess.run(
        ["./scripts/demo", "--port", str(free_port())],
        cwd=ROOT, env=bare_host, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = done.stdout + done.stderr
    assert "the demo runs as a process of this host" in said and "it runs on the CPU" in said
    answers = re.findall(r"answer:\s+(.*)", done.stdout)
    assert len(answers) == 2 and all("".join(ANSWER).strip() in a for a in answers)
    tokens = [int(n) for n in re.findall(r"tokens:\s+(\d+) in", done.stdout)]
    assert tokens[1] > tokens[0]  # the image became tokens of the prompt
    assert nimctl("ps", "--json", env=bare_host).document["runs"] == []


def test_the_block_for_scripts(bare_host: dict[str, str], nimctl: Nimctl) -> None:
    block = next(b for b in blocks() if "--detach" in b)
    lines = [line.split() for line in block.replace("8100", str(free_port())).strip().splitlines()]
    assert [words[:2] for words in lines] == [["nimctl", "run"], ["nimctl", "status"], ["nimctl", "stop"]]
    env = {**bare_host, "NIMCTL_RUNTIME": "process"}
    try:
        for words in lines:
            done = nimctl(*words[1:], env=env, timeout=500)
            assert done.code == 0, done.stderr[-2000:]
    finally:
        nimctl("stop", "ci", env=env)
