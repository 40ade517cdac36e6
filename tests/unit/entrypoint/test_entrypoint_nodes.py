"""What part of a group a node has: from settings, engine options and a LeaderWorkerSet; and where it is reached."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from entrypoint.engine import network, nodes
from entrypoint.engine.model import over_nodes
from entrypoint.engine.nodes import ALONE, Role, role_of
from nimctl.core.engine_options import parse_options
from nimctl.core.errors import NimctlError
from nimctl.core.parallel import Sizes
from nimctl.core.planning.cluster import Cluster, Slot
from nimctl.core.planning.deciding import Request, decide_for
from nimctl.core.recipes import load
from tests.unit.entrypoint.service import service

LWS = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": "kimi-0.kimi.default"}
OPERATOR = {"NIM_MULTI_NODE": "1", "NIM_LEADER_ROLE": "0", "LWS_LEADER_ADDRESS": "kimi-0.kimi.default"}
FIELDS = {
    "NIM_NUM_COMPUTE_NODES": "nodes",
    "NIM_NODE_RANK": "node_rank",
    "NIM_LEADER_ADDRESS": "leader_address",
    "NIM_LEADER_PORT": "leader_port",
}


@dataclass(frozen=True)
class Asked:
    nodes: int = 1
    node_rank: int = 0
    leader_address: str | None = None
    leader_port: int = 29501
    port: int = 8000
    engine_args: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)


def asked(*engine_args: str, **variables: Any) -> Asked:
    made = replace(Asked(engine_args=engine_args), **{FIELDS[name]: value for name, value in variables.items()})
    return replace(made, sources=dict.fromkeys(variables, "environment"))


def test_without_a_word_of_others_a_node_is_alone() -> None:
    assert role_of(asked(), {}) is ALONE
    assert ALONE.leads and ALONE.arguments("10.0.0.1") == {}
    assert role_of(asked(NIM_NUM_COMPUTE_NODES=1), LWS) is ALONE
    assert role_of(asked(), {**LWS, "NIM_MULTI_NODE": "0"}) is ALONE


@pytest.mark.parametrize(
    ("settings", "environ"),
    [
        (asked(NIM_NUM_COMPUTE_NODES=2, NIM_NODE_RANK=1, NIM_LEADER_ADDRESS="kimi-0.kimi.default"), {}),
        (asked("--nnodes", "2", "-r", "1", "--master-addr", "kimi-0.kimi.default", "--headless"), {}),
        (asked("--nnodes=2", "--master-addr=kimi-0.kimi.default", NIM_NODE_RANK=1, NIM_NUM_COMPUTE_NODES=2), {}),
        (asked(NIM_NUM_COMPUTE_NODES=2, NIM_NODE_RANK=1), OPERATOR),
        (asked(), LWS),
    ],
    ids=["settings", "options", "both", "operator", "set"],
)
def test_every_way_to_say_it_means_the_same(settings: Asked, environ: dict[str, str]) -> None:
    role = role_of(settings, environ)
    assert role == Role(2, 1, "kimi-0.kimi.default", 29501)
    assert (role.leads, role.link_port, role.name) == (False, 29502, "node 1 of 2")
    assert role.arguments("10.0.0.1") == {
        "nnodes": 2, "node-rank": 1, "master-addr": "10.0.0.1", "master-port": 29501, "headless": True,
    }  # fmt: skip


def test_the_leader_has_the_api_and_need_not_know_its_own_address() -> None:
    role = role_of(asked("--master-port", "3000", NIM_NUM_COMPUTE_NODES=4), {})
    assert (role.leads, role.leader, role.port) == (True, None, 3000)
    assert "headless" not in role.arguments("10.0.0.1")


@pytest.mark.parametrize(
    ("settings", "environ", "said"),
    [
        (asked("--nnodes", "3", NIM_NUM_COMPUTE_NODES=2), {}, "--nnodes 3 contradicts NIM_NUM_COMPUTE_NODES=2"),
        (asked("-r", "0", NIM_NUM_COMPUTE_NODES=2, NIM_NODE_RANK=1), {}, "--node-rank 0 contradicts NIM_NODE_RANK=1"),
        (
            asked("--master-addr", "a", NIM_NUM_COMPUTE_NODES=2, NIM_LEADER_ADDRESS="b"),
            {},
            "--master-addr a contradicts NIM_LEADER_ADDRESS=b",
        ),
        (asked("--headless", NIM_NUM_COMPUTE_NODES=2), {}, "--headless contradicts rank 0"),
        (asked("--nnodes", "two"), {}, "NIM_NUM_COMPUTE_NODES (--nnodes) is two"),
        (asked(NIM_NUM_COMPUTE_NODES=2, NIM_NODE_RANK=2), {}, "rank 2 of 2 nodes does not exist"),
        (asked(NIM_NODE_RANK=1), {}, "rank 1 of one node does not exist"),
        (asked(NIM_NUM_COMPUTE_NODES=2, NIM_NODE_RANK=1), {}, "node 1 of 2 does not know its leader"),
        (asked(NIM_NUM_COMPUTE_NODES=2), {"NIM_LEADER_ROLE": "0"}, "NIM_LEADER_ROLE=0 without a rank"),
        (
            asked(NIM_NUM_COMPUTE_NODES=2, NIM_NODE_RANK=1),
            {"NIM_LEADER_ROLE": "1"},
            "NIM_LEADER_ROLE=1 contradicts rank 1",
        ),
        (asked(), {"NIM_MULTI_NODE": "1"}, "NIM_MULTI_NODE=1 without a number of nodes"),
        (
            asked(NIM_NUM_COMPUTE_NODES=2, NIM_LEADER_PORT=7999),
            {},
            "port 7999 for the engine and 8000 for the supervisors cannot be used",
        ),
    ],
)
def test_what_contradicts_itself_or_lacks_something_is_one_clear_error(
    settings: Asked, environ: dict[str, str], said: str
) -> None:
    with pytest.raises(NimctlError) as caught:
        role_of(settings, environ)
    assert (caught.value.id, caught.value.message) == ("config-invalid", said)


@pytest.mark.parametrize(
    "settings",
    [asked("--headless"), asked("--distributed-executor-backend", "ray", NIM_NUM_COMPUTE_NODES=2)],
)
def test_options_that_cannot_be_are_refused(settings: Asked) -> None:
    with pytest.raises(NimctlError) as caught:
        role_of(settings, {})
    assert caught.value.id == "usage"


def test_of_the_users_options_those_of_the_part_are_ours_to_write() -> None:
    options = parse_options(["--nnodes", "2", "--max-model-len", "4096", "--headless", "-r", "1"])
    assert [option.name for option in nodes.without(options)] == ["max-model-len"]


def test_a_command_line_is_placed_in_the_group_once() -> None:
    argv = ("vllm", "serve", "/weights", "--uds", "/s", "--nnodes", "2", "--max-model-len", "4096")
    assert nodes.placed(argv, {}) == argv
    assert " ".join(nodes.placed(argv, Role(2, 1, "a").arguments("10.0.0.1"))) == (
        "vllm serve /weights --uds /s --max-model-len 4096"
        " --nnodes 2 --node-rank 1 --master-addr 10.0.0.1 --master-port 29501 --headless"
    )


def test_a_dry_run_shows_the_command_of_this_rank() -> None:
    group = {"NIM_NUM_COMPUTE_NODES": "2", "NIM_NODE_RANK": "1", "NIM_LEADER_ADDRESS": "10.0.0.1"}
    with service(arguments=("--dry-run", "--headless"), **group) as one:
        assert one.start().code() == 0, one.err
        document = json.loads(one.out)
    assert document["layout"]["name"] == "tp1-pp2"
    assert " ".join(document["engine"]).endswith(
        "--nnodes 2 --node-rank 1 --master-addr 10.0.0.1 --master-port 29501 --headless"
    )


def test_the_engine_is_told_where_this_node_is_unless_somebody_said_so() -> None:
    role = Role(2, 1, "10.0.0.1")
    told = {"VLLM_HOST_IP": "10.0.0.2", "GLOO_SOCKET_IFNAME": "eth1", "NCCL_SOCKET_IFNAME": "=eth1"}
    assert nodes.environment(role, {}, "10.0.0.2", "eth1") == told
    assert nodes.environment(role, {"NCCL_SOCKET_IFNAME": "ib0", "VLLM_HOST_IP": "10.9.9.9"}, "10.0.0.2", "eth1") == {
        "GLOO_SOCKET_IFNAME": "eth1"
    }
    assert nodes.environment(ALONE, {}, "10.0.0.2", "eth1") == {}


def test_addresses_of_this_machine_are_known_with_their_interface() -> None:
    assert network.is_own("127.0.0.1") and not network.is_own("192.0.2.1")
    assert network.own_address("127.0.0.1") == "127.0.0.1"
    assert network.interface_of("127.0.0.1") == "lo"
    assert network.interface_of("192.0.2.1") is None
    assert "127.0.0.1" in network.addresses("localhost")
    assert network.addresses("no-such-host.invalid") == ()


def cluster(count: int) -> Cluster:
    memory = 150_100_000_000
    slots = tuple(Slot(n, "NVIDIA H200", (9, 0), memory, memory) for n in range(count))
    return over_nodes(Cluster(slots, link="nvlink"), Role(2, 0))


@pytest.mark.parametrize(
    ("count", "asked_for", "taken"),
    [
        (8, (), (8, 2, 8)),
        (8, (8, 2), (8, 2, 8)),
        (8, (16,), (16, 1, 8)),
        (4, (2, 2), (2, 2, 2)),
        (1, (2,), (2, 1, 1)),
        (1, (), (1, 2, 1)),
    ],
)
def test_a_layout_is_for_the_gpus_of_all_nodes(
    count: int, asked_for: tuple[int, ...], taken: tuple[int, int, int]
) -> None:
    recipe = load("llama-3.1-8b" if count == 1 else "llama-3.1-70b")
    layout = decide_for(recipe, cluster(count), Request(sizes=Sizes(*asked_for)), seen=True).layout
    assert (layout.tensor_parallel_size, layout.pipeline_parallel_size, len(layout.used)) == taken


def test_a_layout_that_leaves_a_node_idle_is_refused() -> None:
    with pytest.raises(NimctlError) as caught:
        decide_for(load("llama-3.1-70b"), cluster(8), Request(sizes=Sizes(8, 1)))
    assert caught.value.id == "no-layout"
    assert "2 nodes of 8" in caught.value.cause


@pytest.mark.parametrize(
    ("sizes", "ranks"), [(Sizes(), (1, 2)), (Sizes(2), (2, 1)), (Sizes(2, 2), (2, 2))], ids=["none", "tp2", "tp2-pp2"]
)
def test_nodes_without_gpus_share_what_was_asked_or_one_rank_each(sizes: Sizes, ranks: tuple[int, int]) -> None:
    layout = decide_for(load("demo"), over_nodes(Cluster(()), Role(2, 1)), Request(sizes=sizes)).layout
    assert (layout.tensor_parallel_size, layout.pipeline_parallel_size) == ranks


def test_ranks_that_do_not_divide_by_the_nodes_are_refused() -> None:
    with pytest.raises(NimctlError) as caught:
        decide_for(load("demo"), over_nodes(Cluster(()), Role(2, 1)), Request(sizes=Sizes(1, 1)))
    assert caught.value.id == "no-layout"
