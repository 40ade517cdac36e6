"""A question to another program: its answer, its end, and what is left of it."""

import os
import time
from pathlib import Path

import pytest

from nimctl.core.exchange import Answer, exchange


def ask(script: str, question: str = "question", *, timeout: float = 5, limit: int = 1000) -> Answer:
    return exchange(["/bin/sh", "-c", script], question, env={"PATH": os.environ["PATH"]}, timeout=timeout, limit=limit)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("cat; cat >&2 < /dev/null", Answer(0, "question")),
        ("echo out; echo err >&2; exit 3", Answer(3, "out\n", "err\n")),
        ("exec <&-; exit 0", Answer(0)),
        ("kill -15 $$", Answer(-15)),
        ("exec >&- 2>&-; exit 7", Answer(7)),
        ("printf '\\377'", Answer(0, "\ufffd")),
    ],
)
def test_what_a_program_leaves(script, expected):
    assert ask(script) == expected


def test_a_question_larger_than_a_pipe_arrives_whole():
    assert ask("wc -c", "x" * 300_000).stdout.strip() == "300000"
    assert ask("exit 0", "x" * 300_000).code == 0, "it need not be read"


@pytest.mark.parametrize("program", ["no-such-program-of-ours", "/etc/hostname", "/"])
def test_what_is_no_program_is_missing(program):
    assert exchange([program], "", env={}, timeout=1, limit=10) == Answer(None, missing=True)


@pytest.mark.parametrize("script", ["sleep 60", "exec >&- 2>&- <&-; sleep 60", "trap '' TERM; sleep 60"])
def test_silence_ends_with_the_time(script):
    answer = ask(script, timeout=0.2)
    assert (answer.code, answer.timed_out) == (None, True)


def test_a_flood_is_stopped():
    answer = ask("yes", limit=100_000)
    assert (answer.code, answer.flooded) == (None, True)
    assert len(answer.stdout) < 200_000


def test_an_agent_that_stays_behind_holds_nobody_up(tmp_path: Path):
    """As gpg-agent, started by pass: in a session of its own, with the pipes still open."""
    file = tmp_path / "agent"
    answer = ask(f"setsid sleep 60 & echo $! > {file}; echo done", timeout=20)
    os.kill(int(file.read_text()), 9)
    assert (answer.code, answer.stdout) == (0, "done\n")


def test_nothing_of_a_program_that_was_ended_is_left(tmp_path: Path):
    file = tmp_path / "child"
    ask(f"sleep 60 & echo $! > {file}; wait", timeout=0.3)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{file.read_text().strip()}/cmdline").exists() and time.monotonic() < deadline:
        if not Path(f"/proc/{file.read_text().strip()}/cmdline").read_bytes():
            return  # a zombie: dead, and not yet fetched by init
    assert time.monotonic() < deadline
