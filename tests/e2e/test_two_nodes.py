"""Two containers, one engine: the demo answers over two nodes, and ends on both with one cause when one is killed."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.lib import lab

pytestmark = pytest.mark.lab

SECONDS_TO_READY = 400.0
SECONDS_TO_END = 60.0


class Node:
    """A container of the lab, reached at its own address."""

    def __init__(self, name: str, image: str, network: str, cache: Path, **environ: str) -> None:
        cache.mkdir(mode=0o777)
        cache.chmod(0o777)  # the container's user is another
        words = [word for key, value in environ.items() for word in ("-e", f"{key}={value}")]
        self.name = name
        lab.docker(
            "run", "-d", "--name", name, "--network", network, "--cap-drop", "ALL", "--read-only",
            "--security-opt", "no-new-privileges", "--tmpfs", "/tmp:exec", "--shm-size", "1g",
            "-v", f"{cache}:/opt/nim/.cache", *words, image,
        )  # fmt: skip
        networks = self.inspect()["NetworkSettings"]["Networks"]
        self.address = str(networks[network]["IPAddress"])

    def inspect(self) -> dict[str, Any]:
        return dict(json.loads(lab.docker("inspect", self.name).stdout)[0])

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{self.address}:8000{path}", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    def running(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    def error(self) -> dict[str, Any]:
        """What it ended with: the last line of its log."""
        lines = lab.docker("logs", self.name).stdout.splitlines()
        return dict(json.loads(next(line for line in reversed(lines) if line.startswith("{")))["error"])


def until(what: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(0.2)


@pytest.fixture
def nodes(cpu_image: str, tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    tag = uuid4().hex[:8]
    network, names = f"group-{tag}", [f"node{rank}-{tag}" for rank in range(2)]
    lab.docker("network", "create", network)
    both = {"NIM_RECIPE": "demo", "NIM_TENSOR_PARALLEL_SIZE": "2", "NIM_NUM_COMPUTE_NODES": "2"}
    try:
        leader = Node(names[0], cpu_image, network, tmp_path / "0", **both, NIM_NODE_RANK="0")
        follower = Node(
            names[1], cpu_image, network, tmp_path / "1",
            **both, NIM_NODE_RANK="1", NIM_LEADER_ADDRESS=leader.address,
        )  # fmt: skip
        yield leader, follower
    finally:
        lab.docker("rm", "-f", "-v", *names)
        lab.docker("network", "rm", network)


def test_two_containers_serve_as_one_and_end_with_one_cause(nodes: tuple[Node, Node]) -> None:
    leader, follower = nodes
    ready = "/v1/health/ready"
    until(
        lambda: (
            (leader.ask(ready)[0], follower.ask(ready)[0]) == (200, 200)
            or not (leader.running() and follower.running())
        ),
        SECONDS_TO_READY,
    )
    status, listed = leader.ask("/v1/models")
    assert status == 200, lab.docker("logs", leader.name).stdout[-3000:]
    question = {"role": "user", "content": "hello"}
    model = listed["data"][0]["id"]
    status, answer = leader.ask("/v1/chat/completions", {"model": model, "messages": [question], "max_tokens": 8})
    assert status == 200 and answer["usage"]["completion_tokens"] > 0
    log = lab.docker("logs", follower.name).stdout
    assert "world_size=2 rank=1" in log, "a rank of its own on the second node"
    assert leader.ask("/v1/metadata")[1]["tensorParallelSize"] == 2
    assert follower.ask("/v1/models")[0] == 421

    lab.docker("kill", follower.name)
    until(lambda: not leader.running(), SECONDS_TO_END)
    error = leader.error()
    assert error["id"] == "node-lost" and error["message"].startswith("node 1 (")
    assert leader.inspect()["State"]["ExitCode"] == 8
