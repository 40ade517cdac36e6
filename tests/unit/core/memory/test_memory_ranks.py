"""Ranks and pipeline stages, as the engine divides them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.memory.ranks import Parallel, stage_layers


# Computed with vllm/distributed/utils.py of 0.32.0
@pytest.mark.parametrize(
    ("layers", "stages", "sizes"),
    [
        (61, 1, [61]),
        (61, 2, [31, 30]),
        (61, 4, [15, 15, 16, 15]),
        (62, 4, [15, 16, 16, 15]),
        (92, 8, [11, 11, 11, 12, 12, 12, 12, 11]),
        (94, 4, [23, 24, 24, 23]),
    ],
)
def test_layers_of_stages(layers, stages, sizes):
    assert [len(stage) for stage in stage_layers(layers, stages)] == sizes


@given(st.integers(1, 200), st.integers(1, 64))
def test_every_layer_is_on_one_stage(layers, stages):
    if stages <= layers:
        held = [layer for stage in stage_layers(layers, stages) for layer in stage]
        assert held == list(range(layers))


def test_ranks_are_counted_and_know_their_place():
    parallel = Parallel(tensor=2, pipeline=2, data=2)
    ranks = list(parallel.ranks())
    assert len(ranks) == parallel.world == 8
    assert sorted({rank.expert for rank in ranks}) == list(range(parallel.expert_ranks)) == [0, 1, 2, 3]
