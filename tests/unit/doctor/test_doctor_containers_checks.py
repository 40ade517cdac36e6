"""What already runs: containers with GPUs, and keys that anybody with Docker can read."""

import pytest

from nimctl.core.facts import ContainerFacts
from tests.unit.doctor.hosts import host, judge, verdicts


def check(name, *containers):
    return judge(name, host(docker={"containers": containers}))


CHAT = ContainerFacts("c1", "chat", "vllm/vllm-openai:v0.15.0", gpus=True)
DATABASE = ContainerFacts("c2", "db", "postgres:17", gpus=False, key_variables=("POSTGRES_PASSWORD",))
UNSEEN = ContainerFacts("c3", "many", "busybox")


def test_containers_with_gpus_are_named():
    assert verdicts(check("gpu-containers")) == [("pass", "gpu-containers")]
    (finding,) = check("gpu-containers", CHAT, DATABASE)
    assert finding.title == "running containers with GPUs: 1"
    assert finding.evidence == ("chat (vllm/vllm-openai:v0.15.0)",)


@pytest.mark.parametrize("name", ["gpu-containers", "keys-in-containers"])
def test_containers_that_were_not_listed_are_unknown(name):
    assert verdicts(judge(name, host(docker={"containers": None}))) == [("unknown", name)]


def test_a_container_that_was_not_looked_at_may_have_gpus():
    assert verdicts(check("gpu-containers", CHAT, UNSEEN)) == [("unknown", "gpu-containers")]


@pytest.mark.parametrize(
    ("image", "names", "gpus", "severity"),
    [
        ("vllm/vllm-openai:v0.15.0", ("HF_TOKEN",), True, "warning"),
        ("registry.example/x:1", ("NGC_API_KEY",), False, "warning"),
        ("nvcr.io/nim/moonshotai/kimi-k2.5:1.7.0", ("NGC_API_KEY",), True, "info"),
        ("nvcr.io/nim/moonshotai/kimi-k2.5:1.7.0", ("AWS_SECRET_ACCESS_KEY", "NGC_API_KEY"), True, "warning"),
        ("registry.example/x:1", ("VLLM_API_KEY",), True, "warning"),
    ],
)
def test_keys_in_environments_are_named_with_their_container(image, names, gpus, severity):
    (finding,) = check("keys-in-containers", ContainerFacts("c", "box", image, gpus=gpus, key_variables=names))
    assert (finding.verdict, finding.id, finding.severity) == ("warn", "keys-in-environment", severity)
    assert "box" in finding.title
    assert finding.evidence == names


def test_passwords_of_other_programs_are_not_this_program_s_business():
    assert verdicts(check("keys-in-containers", DATABASE, UNSEEN)) == [("pass", "keys-in-containers")]


def test_keys_in_many_containers_are_one_finding_that_names_them():
    boxes = [ContainerFacts(f"c{i}", f"box{i}", "x", gpus=True, key_variables=("HF_TOKEN",)) for i in range(20)]
    nim = ContainerFacts("n", "nim", "nvcr.io/nim/a/b:1", gpus=True, key_variables=("NGC_API_KEY",))
    (finding,) = check("keys-in-containers", nim, *boxes)
    assert (finding.title, finding.severity) == ("the environments of 21 containers hold keys", "warning")
    assert finding.evidence[:2] == ("nim: NGC_API_KEY", "box0: HF_TOKEN")
    assert finding.evidence[-1] == "and 5 more"
    (finding,) = check("keys-in-containers", nim, nim)
    assert finding.severity == "info"  # as NVIDIA's pages say
