"""Fault: the cache is read-only or full, the port is taken, the state folder is not ours, the settings are wrong."""

import json
import socket

import pytest

from tests.lib.mounts import tmpfs
from tests.lib.users import needs_root
from tests.unit.entrypoint.service import needs_nginx, service

pytestmark = needs_nginx


@needs_root
@pytest.mark.parametrize(
    ("options", "error_id"), [("size=1m,ro", "cache-not-writable"), ("size=1m,nr_inodes=1", "disk-full")]
)
def test_the_cache(options, error_id):
    with service(NIM_MODEL_PATH="builtin://demo") as one, tmpfs(one.cache, options):
        one.start()
        assert one.code() == 9
        assert one.failure()["error"]["id"] == error_id
        assert one.startup()["stages"][2]["state"] == "failed"


def test_the_port_is_taken():
    with service() as one, socket.socket() as other:
        other.bind(("127.0.0.1", one.port))
        other.listen()
        one.start()
        assert one.code() == 9
        error = one.failure()["error"]
        assert error["id"] == "port-in-use"
        assert str(one.port) in error["message"]


def test_the_address_is_not_ours():
    with service(NIM_SERVER_HOST="192.0.2.1") as one:
        one.start()
        assert one.code() == 2
        assert one.failure()["error"]["id"] == "config-invalid"


def test_two_servers_in_one_state_folder():
    with service() as one, service() as other:
        one.hold("chat").start().wait_stage("warmup")
        other.state = one.state
        other.start()
        assert other.code() == 9
        assert "error[name-in-use]" in other.err
        one.release("chat")
        one.wait_ready()


@pytest.mark.parametrize(
    ("environ", "error_id", "code"),
    [
        ({"NIM_SERVER_PORT": "eighty"}, "config-invalid", 2),
        ({"NIM_RECIPE": "no-such-model"}, "model-unknown", 2),
        ({"NIM_RECIPE": "kimi-k2.5-turbo"}, "config-invalid", 2),
        ({"NIM_MODEL_PATH": "/no/such/folder"}, "weights-missing", 6),
        ({"NIMCTL_ENGINE_DEVICE": "cuda"}, "gpu-missing", 3),
        ({"NIM_PASSTHROUGH_ARGS": "--port 9000"}, "usage", 2),
    ],
)
def test_wrong_settings(environ, error_id, code):
    with service(**environ) as one:
        one.start()
        assert one.code() == code
        assert f"error[{error_id}]" in one.err
        assert one.startup()["state"] == "failed"
        assert json.loads(one.out.splitlines()[-1])["error"]["id"] == error_id
