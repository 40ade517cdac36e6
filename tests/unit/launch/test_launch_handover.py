"""What of the caller's environment goes with a run: what its source needs, keys as files, and nothing else."""

import configparser
import json
from pathlib import Path

import pytest

from nimctl.core import recipes
from nimctl.core.errors import NimctlError
from nimctl.core.secret import Secret
from nimctl.launch import handover
from nimctl.launch.docker.create_request import container_body
from nimctl.launch.plan import make_plan, to_json
from tests.unit.launch.launch_hosts import asked, gpus, host, note_ids

CANARY = "canaryCanaryCANARY0123456789"
AWS = {"AWS_ACCESS_KEY_ID": "AKIACANARY", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SESSION_TOKEN": CANARY}
EVERYTHING = {
    **AWS, "HF_ENDPOINT": "https://hub.example", "HF_HUB_OFFLINE": "1", "AWS_REGION": "eu-1", "AWS_PROFILE": "mine",
    "NGC_API_ENDPOINT": "https://ngc.example", "GOOGLE_BASE_URL": "https://gs.example", "EDITOR": "vi",
    "HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": ".example", "HF_HOME": "/x", "NIM_CACHE_PATH": "/y",
}  # fmt: skip


def planned(weights: str, environment: dict[str, str], **changes: object):
    options = asked(
        "kimi-k2.5",
        model_path=weights,
        surroundings=handover.passed(environment),
        secrets_present=handover.present(environment),
        **changes,
    )
    return make_plan(options, host(*gpus(8), runtime=True))


def handed(plan) -> dict[str, str]:
    return {e.name: str(e.value) for e in plan.env if e.why == "to fetch weights"}


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ("hf://org/name", {"HF_ENDPOINT", "HF_HUB_OFFLINE"}),
        ("ngc://org/team/name:1", {"NGC_API_ENDPOINT", "HF_HUB_OFFLINE"}),
        ("s3://bucket/name", {"AWS_REGION"}),
        ("gs://bucket/name", {"GOOGLE_BASE_URL"}),
        ("https://mirror.example/name", set()),
    ],
)
def test_each_source_gets_its_own_variables_and_the_proxies(weights, names):
    assert set(handed(planned(weights, EVERYTHING))) == names | {"HTTPS_PROXY", "no_proxy"}


@pytest.mark.parametrize("weights", ["/data/model", "builtin://demo"])
def test_local_weights_need_nothing_of_it(weights):
    plan = planned(weights, EVERYTHING)
    assert handed(plan) == {} and plan.secrets == ()


def test_an_image_of_nvidia_gets_nothing_of_it():
    options = asked("kimi-k2.5-nim", surroundings=handover.passed(EVERYTHING))
    assert handed(make_plan(options, host(*gpus(8), runtime=True))) == {}


def test_what_was_given_by_hand_wins():
    plan = planned("hf://org/name", EVERYTHING, env=(("HF_ENDPOINT", "https://other.example"),))
    assert [e.value for e in plan.env if e.name == "HF_ENDPOINT"] == ["https://other.example"]


def test_a_mirror_gets_what_it_needs_beside_what_the_source_needs():
    plan = planned("hf://org/name", {**EVERYTHING, "NIM_REPOSITORY_OVERRIDE": "s3://mirror"})
    assert {"NIM_REPOSITORY_OVERRIDE", "AWS_REGION", "HF_ENDPOINT"} <= set(handed(plan))
    assert [s.name for s in plan.secrets] == [handover.AWS_KEYS]


def test_keys_of_a_store_are_a_file_and_in_no_document():
    plan = planned("s3://bucket/name", EVERYTHING)
    [mounted] = plan.secrets
    assert mounted.target == f"/run/secrets/{handover.AWS_KEYS}"
    assert (handover.AWS_KEYS, mounted.target) in [(e.name, e.value) for e in plan.env]
    key = handover.secret(handover.AWS_KEYS, AWS)
    body = container_body(plan, {handover.AWS_KEYS: key})
    assert CANARY not in json.dumps(body) + json.dumps(to_json(plan)) + repr(plan)
    read = configparser.ConfigParser()
    read.read_string(key.reveal())
    assert dict(read["default"]) == {
        "aws_access_key_id": "AKIACANARY", "aws_secret_access_key": CANARY, "aws_session_token": CANARY,
    }  # fmt: skip


def test_half_a_pair_of_keys_is_none():
    assert handover.secret(handover.AWS_KEYS, {"AWS_ACCESS_KEY_ID": "a"}) is None
    assert handover.present({"AWS_SECRET_ACCESS_KEY": "a"}) == ()


def test_a_google_key_is_read_from_its_file_or_variable(tmp_path: Path):
    path = tmp_path / "key.json"
    path.write_text('{"a": 1}')
    for environment in ({"GOOGLE_APPLICATION_CREDENTIALS": str(path)}, {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"a": 1}'}):
        assert handover.secret(handover.GOOGLE_KEYS, environment) == Secret('{"a": 1}')
    plan = planned("gs://bucket/name", {"GOOGLE_SERVICE_ACCOUNT_KEY": "{}"})
    assert ("GOOGLE_APPLICATION_CREDENTIALS", "/run/secrets/GOOGLE_APPLICATION_CREDENTIALS") in [
        (e.name, e.value) for e in plan.env
    ]


def test_keys_of_other_kinds_are_found_as_ever():
    assert handover.secret("HF_TOKEN", {"HF_TOKEN": "hf_x"}) == Secret("hf_x")
    with pytest.raises(NimctlError):
        handover.secret("HF_TOKEN", {"HF_TOKEN_FILE": "/nonexistent"})


def test_a_password_in_a_proxy_is_a_secret_and_said_so():
    proxy = f"http://user:{CANARY}@proxy.example:3128"
    plan = planned("hf://org/name", {"HTTPS_PROXY": proxy})
    assert [e.value for e in plan.env if e.name == "HTTPS_PROXY"] == [Secret(proxy)]
    assert CANARY not in json.dumps(to_json(plan)) + repr(plan)
    assert "password-in-environment" in note_ids(plan)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"])
def test_an_address_that_a_container_cannot_reach_is_said(address):
    assert "loopback-endpoint" in note_ids(planned("hf://org/name", {"HF_ENDPOINT": address}))
    assert "loopback-endpoint" not in note_ids(planned("hf://org/name", {"HF_ENDPOINT": "https://hub.example"}))


def test_the_recipe_of_the_default_model_is_remote():
    assert handover.schemes(asked("kimi-k2.5")) == ("hf",)
    assert recipes.load("demo").weights.startswith("builtin://") and handover.schemes(asked("demo")) == ()


def test_the_file_of_trusted_cas_is_mounted_for_a_container_and_left_alone_for_a_process():
    plan = planned("hf://org/name", {"SSL_CERT_FILE": "/etc/ca.pem"})
    [mount] = [m for m in plan.mounts if m.source == "/etc/ca.pem"]
    assert mount.read_only and ("SSL_CERT_FILE", mount.target) in [(e.name, e.value) for e in plan.env]
    local = planned("/data/model", {"SSL_CERT_FILE": "/etc/ca.pem"})
    assert [m.source for m in local.mounts] == ["/data/nim", "/data/model"]
    process = planned("hf://org/name", {"SSL_CERT_FILE": "/etc/ca.pem"}, runtime="process", image=None)
    assert "SSL_CERT_FILE" not in [e.name for e in process.env]
