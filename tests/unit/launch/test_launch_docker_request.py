"""The body of `POST /containers/create` says the same as the command line that users see."""

from dataclasses import replace

from nimctl.core.secret import Secret
from nimctl.launch.docker.create_request import container_body
from nimctl.launch.model import EnvVar
from nimctl.launch.show import docker_run_line
from tests.unit.launch.launch_hosts import gpus, host, plan


def test_a_confined_container() -> None:
    body = container_body(plan("demo"), {})
    config = body["HostConfig"]
    assert body["User"] == "1000:0"
    assert body["Cmd"] is None
    assert body["StopTimeout"] == 45
    assert config["Binds"] == ["/data/nim:/opt/nim/.cache"]
    assert config["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}]}
    assert config["CapDrop"] == ["ALL"]
    assert config["SecurityOpt"] == ["no-new-privileges"]
    assert config["ReadonlyRootfs"] is True
    assert config["Tmpfs"] == {"/tmp": "rw,exec,nosuid,nodev,size=2147483648,mode=1777"}
    assert config["ShmSize"] == 2**30
    assert "DeviceRequests" not in config and "Runtime" not in config


def test_gpus_through_the_runtime_the_hook_and_cdi() -> None:
    two = gpus(2)
    runtime = container_body(plan("demo", host(*two, runtime=True, hook=True)), {})["HostConfig"]
    assert runtime["Runtime"] == "nvidia"
    assert runtime["DeviceRequests"] == [{"Driver": "", "Capabilities": [["gpu"]], "Count": -1}]
    hook = container_body(plan("demo", host(*two, hook=True), gpus="device=1"), {})["HostConfig"]
    assert "Runtime" not in hook
    assert hook["DeviceRequests"] == [{"Driver": "", "Capabilities": [["gpu"]], "Count": 0, "DeviceIDs": ["1"]}]
    cdi = container_body(plan("demo", host(*two, cdi=("0", "1")), gpus="2"), {})["HostConfig"]
    assert cdi["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]}]


def test_the_runtime_without_the_hook() -> None:
    made = plan("demo", host(*gpus(4), runtime=True), gpus="0,3")
    body = container_body(made, {})
    assert body["HostConfig"]["Runtime"] == "nvidia" and "DeviceRequests" not in body["HostConfig"]
    assert "NVIDIA_VISIBLE_DEVICES=0,3" in body["Env"]
    given = replace(made, env=(EnvVar("NVIDIA_VISIBLE_DEVICES", "1", "--env", "it was asked for"),))
    assert container_body(given, {})["Env"] == ["NVIDIA_VISIBLE_DEVICES=1"]
    assert docker_run_line(given).count("NVIDIA_VISIBLE_DEVICES") == 1


def test_a_key_file_is_mounted_and_never_made() -> None:
    made = plan("kimi-k2.5", host(*gpus(8), hook=True), secrets_present=("HF_TOKEN",))
    config = container_body(made, {"HF_TOKEN": Secret("hf_0123456789")})["HostConfig"]
    source, target = "/run/user/1000/nimctl/kimi-k2.5/HF_TOKEN", "/run/secrets/HF_TOKEN"
    assert config["Mounts"] == [{"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}]
    assert config["Binds"] == ["/data/nim:/opt/nim/.cache"]


def test_nvidias_image_keeps_its_own_user_and_root_file_system_for_root() -> None:
    made = plan("kimi-k2.5-turbo", host(*gpus(8), runtime=True, hook=True), uid=0)
    body = container_body(made, {"NGC_API_KEY": Secret("nvapi-0123456789")})
    assert "User" not in body
    assert body["HostConfig"]["ReadonlyRootfs"] is False
    assert body["Env"] == ["NGC_API_KEY=nvapi-0123456789"]


def test_a_variable_that_holds_a_key_reaches_the_container() -> None:
    body = container_body(plan("demo", env=(("MY_TOKEN", "abc"),)), {})
    assert "MY_TOKEN=abc" in body["Env"]
