"""Docker, NVML and DNS hang at once: the doctor answers all the same, and names each of them."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import private_environment
from tests.lib.hung_host import hung_host, why_not

pytestmark = pytest.mark.lab


def test_each_that_hangs_is_named_and_hides_nothing(home: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    with hung_host(home, private_environment(os.environ, home)) as host:
        argv = host.argv("doctor", "kimi-k2.5", "--gpus", "all", "--json")
        done = subprocess.run(argv, env=host.environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    failing = {f["id"]: f for f in document["findings"] if f["verdict"] == "fail"}
    assert {"docker-hangs", "driver-hangs", "weights-source-unreachable"} <= set(failing)
    passed = {f["check"] for f in document["findings"] if f["verdict"] == "pass"}
    assert {"os", "arch", "port"} <= passed
    assert "Traceback" not in done.stderr
