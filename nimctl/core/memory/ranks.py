"""How the work is divided: the parallel sizes, and one rank's place in them. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Parallel:
    """Tensor, pipeline, data and decode-context parallel sizes; `expert` places whole experts instead of cutting each.

    `tensor` ranks make a pipeline stage, `tensor * pipeline` a replica; decode-context parallelism uses the ranks of a
    stage and adds none. https://docs.vllm.ai/en/stable/serving/parallelism_scaling/
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    decode_context: int = 1
    expert: bool = False

    @property
    def world(self) -> int:
        """The number of ranks, each on a GPU of its own."""
        return self.tensor * self.pipeline * self.data

    @property
    def expert_ranks(self) -> int:
        """Over how many ranks the routed experts of a stage are divided, whole or cut: data-parallel ranks count."""
        return self.tensor * self.data

    def ranks(self) -> "Iterator[Rank]":
        """One rank for each place whose memory can differ: tensor ranks of each stage and replica, in order."""
        for data in range(self.data):
            for pipeline in range(self.pipeline):
                for tensor in range(self.tensor):
                    yield Rank(self, tensor, pipeline, data)


@dataclass(frozen=True)
class Rank:
    """One rank's place."""

    parallel: Parallel
    tensor: int = 0
    pipeline: int = 0
    data: int = 0

    @property
    def expert(self) -> int:
        """Its number among the ranks that share the experts of its stage."""
        return self.data * self.parallel.tensor + self.tensor


def stage_layers(layers: int, stages: int) -> tuple[range, ...]:
    """Which layers each stage holds; what does not divide goes to stages before the last, counted back from it.

    https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/distributed/utils.py (get_pp_indices)
    """
    sizes = [layers // stages] * stages
    for extra in range(layers % stages):
        sizes[-(extra + 2)] += 1
    starts = [sum(sizes[:stage]) for stage in range(stages)]
    return tuple(range(start, start + size) for start, size in zip(starts, sizes, strict=True))
