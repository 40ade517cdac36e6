"""Fault: a host with things to mend. `nimctl doctor --fix` mends them for real, and the second look shows it."""

import json
import os
import stat
from pathlib import Path

import pytest

from tests.lib.users import needs_root

pytestmark = needs_root

WEIGHTS = Path("huggingface/hub/models--nimctl--demo/snapshots/1/model.safetensors")


def remedy(done, name):
    (found,) = [r for r in done.document["remedies"] if r["id"] == name]
    return found


@pytest.fixture
def closed_cache(home):
    cache = home / "cache"
    file = cache / WEIGHTS
    file.parent.mkdir(parents=True)
    for folder in (cache, *(cache / parent for parent in WEIGHTS.parents)):
        os.chown(folder, 0, 4242)
        folder.chmod(0o755)
    file.write_bytes(b"weights")
    file.chmod(0o600)
    return cache


def test_the_cache_is_mended_and_judged_again(bare_host, nimctl, closed_cache):
    arguments = ("doctor", "demo", "--only", "storage", "--json", "--fix")
    planned = nimctl(*arguments, env=bare_host)
    assert (planned.code, remedy(planned, "cache-init")["applied"]) == (3, False)
    assert stat.S_IMODE(closed_cache.stat().st_mode) == 0o755
    done = nimctl(*arguments, "--yes", env=bare_host)
    assert done.code == 0, done.stderr
    assert remedy(done, "cache-init")["applied"]
    assert {"cache-not-writable", "weights-unreadable"} <= set(remedy(done, "cache-init")["mends"])
    assert not [f for f in done.document["findings"] if f["verdict"] == "fail"]
    assert closed_cache.stat().st_gid == 0
    assert stat.S_IMODE((closed_cache / WEIGHTS).stat().st_mode) == 0o660


def test_logins_are_closed_and_never_shown(bare_host, nimctl, home):
    config = home / ".docker" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"auths": {"nvcr.io": {"auth": "JG9hdXRodG9rZW46bnZhcGktQ0FOQVJZ"}}}))
    config.chmod(0o644)
    environment = {name: value for name, value in bare_host.items() if name != "DOCKER_CONFIG"}
    done = nimctl("doctor", "demo", "--only", "credentials", "--json", "--fix", "--yes", env=environment)
    assert remedy(done, "close-logins")["applied"], done.stderr
    assert stat.S_IMODE(Path(config).stat().st_mode) == 0o600
    assert "login-readable" not in {f["id"] for f in done.document["findings"]}
    assert "JG9hdXRodG9rZW4" not in done.stdout + done.stderr


def test_a_command_that_is_missing_is_one_error_beside_the_report(bare_host, nimctl, home):
    config = home / ".docker" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"auths": {"nvcr.io": {"auth": "JG9hdXRodG9rZW46bnZhcGktQ0FOQVJZ"}}}))
    config.chmod(0o644)
    environment = {name: value for name, value in bare_host.items() if name != "DOCKER_CONFIG"} | {"PATH": "/nowhere"}
    done = nimctl("doctor", "demo", "--only", "docker-login", "--json", "--fix", "--yes", env=environment)
    error = remedy(done, "close-logins")["error"]
    assert (done.code, error["id"]) == (3, "fix-failed")
    assert error["cause"] == "there is no program chmod"
    assert "error[fix-failed]" in done.stderr
    assert "login-readable" in {f["id"] for f in done.document["findings"]}
    assert stat.S_IMODE(config.stat().st_mode) == 0o644
