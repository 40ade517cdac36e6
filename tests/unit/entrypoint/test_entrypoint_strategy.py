"""How the weights come from the disk: facts in, a plan out."""

import json
from dataclasses import replace

import pytest

from entrypoint.engine.strategy import Facts, plan
from nimctl.core.engine_options import parse_options

KIMI = 595_148_192_736
LOCAL = Facts(KIMI, 10**10, "xfs", 10**12, 0.0, 8)


def decided(facts=LOCAL, given=(), **changes):
    return plan(replace(facts, **changes), parse_options(given))


def words(of):
    return [word for option in of.options for word in option.words]


def test_what_fits_is_read_ahead():
    found = decided()
    assert found.ahead and found.threads and not found.reads
    assert words(found) == []
    assert found.because == "595.1 GB on xfs fit into 1000.0 GB of free memory"
    assert found.limit < 10**12


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"wanted": "off"}, "NIM_WEIGHTS_PREFETCH=off"),
        ({"filesystem": "tmpfs"}, "tmpfs is memory"),
        ({"total": 0}, "no safetensors files"),
        ({"resident": 0.96}, "in memory already"),
        ({"available": None}, "nobody knows"),
        ({"available": 6 * 10**11}, "do not fit into 600.0 GB"),
        ({"nodes": 2}, "one of 2"),
    ],
)
def test_what_would_not_help_is_left(changes, because):
    found = decided(**changes)
    assert not found.ahead and not found.threads
    assert because in found.because


def test_who_insists_gets_as_much_as_fits():
    found = decided(available=10**11, wanted="on")
    assert found.ahead and found.limit == 8 * 10**10


@pytest.mark.parametrize("filesystem", ["nfs4", "lustre", "fuse.gcsfuse", "ceph"])
def test_over_a_network_the_files_are_read_by_us_and_once(filesystem):
    found = decided(filesystem=filesystem)
    assert found.reads and found.threads > decided().threads
    assert words(found) == ["--safetensors-load-strategy", "lazy"]


def test_over_a_network_whole_files_where_they_cannot_be_read_ahead():
    assert words(decided(filesystem="nfs", available=3 * 10**11)) == ["--safetensors-load-strategy", "eager"]
    assert words(decided(filesystem="nfs", available=10**11)) == [], "eight ranks with 10 GB each need more than that"
    assert words(decided(filesystem="nfs", resident=1.0)) == []


def test_the_users_strategy_stays():
    found = decided(filesystem="nfs", given=["--safetensors-load-strategy", "prefetch"])
    assert words(found) == [] and "prefetch as given" in found.because


@pytest.mark.parametrize("kind", ["fastsafetensors", "runai_streamer", "dummy", "instanttensor"])
def test_loaders_with_a_way_of_their_own_are_left_alone(kind):
    found = decided(given=["--load-format", kind], experts=True, filesystem="nfs")
    assert not found.ahead and words(found) == []
    assert decided(given=["--load-format", "safetensors"]).ahead


def test_whole_experts_are_read_by_those_who_have_them():
    assert words(decided(experts=True)) == ["--enable-ep-weight-filter"]
    assert words(decided(experts=True, available=3 * 10**11, filesystem="nfs")) == ["--enable-ep-weight-filter"]


@pytest.mark.parametrize(
    "given",
    [
        ["--enable-ep-weight-filter"],
        ["--no-enable-ep-weight-filter"],
        ["--enable-eplb"],
        ["--model-loader-extra-config", json.dumps({"enable_multithread_load": True})],
        ["--model-loader-extra-config={'enable_multithread_load': True}"],
    ],
)
def test_the_filter_is_never_beside_what_breaks_it(given):
    assert words(decided(experts=True, given=given)) == []


def test_many_threads_refuse_a_strategy():
    threaded = ["--model-loader-extra-config", '{"enable_multithread_load": true}']
    assert words(decided(filesystem="nfs", given=threaded)) == []
    assert words(decided(filesystem="nfs", given=["--model-loader-extra-config", "{}"])) != []
