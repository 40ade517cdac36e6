"""Fault: a node of a group, or its engine, ends or does not fit. Every node ends with one cause, and none hangs."""

import os
import signal

import pytest

from tests.unit.entrypoint.service import group, needs_nginx, until

pytestmark = needs_nginx


def serving(nodes):
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_ready()
    return nodes


def test_a_group_serves_by_its_leader_and_stops_in_order():
    with group() as (leader, follower):
        follower.start().wait_stage("engine")
        until(lambda: "waiting for the leader at 127.0.0.1" in follower.out + follower.err)
        assert follower.status("/v1/health/ready") == 503
        serving([leader])
        follower.wait_ready()
        asked = leader.chat()
        assert asked.status == 200
        refused = follower.chat()
        assert (refused.status, refused.json["error"]["type"]) == (421, "MisdirectedRequestError")
        assert follower.status("/v1/models") == 421
        assert follower.asked() == [], "no warm-up asks a follower"
        argv = [" ".join(node.engine()["argv"]) for node in (leader, follower)]
        assert "--nnodes 2 --node-rank 0" in argv[0] and "--headless" not in argv[0]
        assert "--nnodes 2 --node-rank 1" in argv[1] and "--headless" in argv[1]
        assert follower.engine()["environ"]["VLLM_HOST_IP"] == "127.0.0.1"
        leader.hold("stream")
        follower.signal(signal.SIGTERM)  # an orderly stop of any node is one of all
        until(lambda: leader.status("/v1/health/ready") != 200)
        assert (leader.code(), follower.code()) == (143, 143)
        assert "was told to stop" in leader.out + leader.err


@pytest.mark.parametrize("victim", [0, 1], ids=["leaders engine", "followers engine"])
def test_an_engine_that_is_killed_is_the_cause_on_every_node(victim):
    with group() as nodes:
        serving(nodes)
        os.kill(nodes[victim].engine()["pid"], signal.SIGKILL)
        assert [node.code() for node in nodes] == [8, 8]
        errors = [node.failure()["error"] for node in nodes]
        assert {error["id"] for error in errors} == {"engine-died"}
        assert all(error["message"].startswith(f"node {victim}") and "SIGKILL" in error["message"] for error in errors)
        assert errors[0]["cause"] == errors[1]["cause"]


@pytest.mark.parametrize("victim", [0, 1], ids=["leader", "follower"])
def test_a_node_that_is_killed_whole_is_named_by_the_other(victim):
    with group() as nodes:
        serving(nodes)
        nodes[victim].signal(signal.SIGKILL)
        other = nodes[1 - victim]
        assert other.code() == 8
        error = other.failure()["error"]
        assert error["id"] == "node-lost"
        assert error["message"].startswith(f"node {victim}") and "without a word" in error["cause"]


def test_an_echo_of_anothers_death_is_told_with_the_cause():
    with group() as nodes:
        nodes[1].mode("dies")
        nodes[0].mode("loses-peer")
        for node in nodes:
            node.start()
        assert [node.code() for node in nodes] == [8, 8]
        causes = {node.failure()["error"]["cause"] for node in nodes}
        assert causes == {"RuntimeError: the checkpoint does not fit its config"}


def test_a_node_that_differs_is_refused_before_anything_is_started():
    with group() as (leader, follower):
        follower._environ["NIM_MAX_MODEL_LEN"] = "512"
        leader.start()
        follower.start()
        assert follower.code() == 2
        error = follower.failure()["error"]
        assert error["id"] == "node-refused" and "--max-model-len is 512 there" in error["cause"]
        until(lambda: "--max-model-len is 512 there" in str(leader.startup()))
        assert not (leader.fake / "started").exists()
        assert leader.alive().signal(signal.SIGTERM).code() == 143


def test_a_part_that_cannot_be_is_refused_at_once():
    with group() as (leader, _):
        leader._environ["NIM_NODE_RANK"] = "2"
        assert leader.start().code() == 2
        assert "rank 2 of 2 nodes does not exist" in leader.err
