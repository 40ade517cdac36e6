"""Which layouts there are for a model on a cluster, and why the engine would refuse one. Pure.

Rules: https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/model.py (verify_with_parallel_config),
.../config/parallel.py, .../model_executor/layers (linear.py, fused_moe/config.py, quantization)
"""

from collections.abc import Iterator
from itertools import chain, islice

from nimctl.core.memory.ranks import Parallel
from nimctl.core.memory.settings import language
from nimctl.core.planning import rules
from nimctl.core.planning.cluster import Cluster
from nimctl.core.planning.model import ModelFacts
from nimctl.core.planning.wishes import Wishes


def obstacles(model: ModelFacts, parallel: Parallel) -> list[str]:
    """Why the engine cannot divide this model like this, one reason each; empty when it can, or nobody knows.

    Of the tensor size only the first reason is given: what does not divide by the heads seldom divides by the rest. A
    vision tower is no obstacle: where its heads do not divide it is copied.
    """
    if model.config is None:
        return []
    text = language(model.config)
    divided = chain(
        rules.heads(text, parallel.tensor, latent=model.latent),
        rules.vocabulary(text, parallel.tensor),
        rules.dense_width(model, text, parallel),
        rules.expert_width(model, text, parallel) if model.experts else (),
    )
    return [
        *rules.stages(model, parallel.pipeline),
        *rules.experts(model, parallel),
        *rules.decode_context(model, text, parallel),
        *islice(divided, 1),
    ]


def misfits(cluster: Cluster, parallel: Parallel, needs: tuple[int, int] | None = None) -> list[str]:
    """Why this cluster has no place for these ranks, one reason each."""
    reasons = []
    if parallel.world > cluster.size:
        reasons.append(f"it needs {parallel.world} GPUs, {cluster.size} are given")
    elif spread(cluster, parallel) is None:
        reasons.append(
            f"{parallel.world} ranks in groups of {parallel.tensor} cannot be spread evenly over "
            f"{cluster.nodes} nodes of {len(cluster.slots)} GPUs"
        )
    if cluster.sliced and parallel.world > 1:
        reasons.append("MIG slices cannot work together: NCCL takes one of each GPU")
    capability = cluster.capability
    if needs is not None and capability is not None and capability < needs:
        reasons.append(
            f"it needs compute capability {needs[0]}.{needs[1]}, these GPUs have {capability[0]}.{capability[1]}"
        )
    return reasons


def spread(cluster: Cluster, parallel: Parallel) -> tuple[int, int] | None:
    """How many nodes the ranks take, and how many GPUs of each; None where there is no room.

    All nodes run as many ranks, as `--nnodes` has it, and a tensor group stays in one node or fills whole ones.
    https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/config/parallel.py (local_world_size)
    """
    node, world, tensor = len(cluster.slots), parallel.world, parallel.tensor
    if not node or world > cluster.size:
        return None
    if tensor > node:
        nodes = world // node
        return (nodes, node) if tensor % node == 0 and (nodes == cluster.nodes or not cluster.together) else None
    fewest = cluster.nodes if cluster.together else -(-world // node)
    for nodes in range(fewest, min(cluster.nodes, world // tensor) + 1):
        if world % nodes == 0 and world // nodes <= node and (world // nodes) % tensor == 0:
            return nodes, world // nodes
    return None


def layouts(model: ModelFacts, cluster: Cluster, wishes: Wishes) -> Iterator[Parallel]:
    """Every layout worth judging, each once; of what was asked for only that. Invalid ones are among them.

    Tensor sizes are all up to a node (and whole nodes beyond) that the heads divide by, and what was asked; of an
    unknown model only 1, which cannot be wrong.
    """
    sizes = wishes.sizes
    for tensor in [sizes.tensor] if sizes.tensor else _tensor_sizes(model, cluster):
        for pipeline in [sizes.pipeline] if sizes.pipeline else _pipeline_sizes(model, cluster, tensor):
            for data in [sizes.data] if sizes.data else _data_sizes(model, cluster, wishes, tensor, pipeline):
                for expert in _expert_choices(model, wishes, tensor * data):
                    for context in _context_choices(model, wishes, tensor):
                        yield Parallel(tensor, pipeline, data, context, expert)


def _tensor_sizes(model: ModelFacts, cluster: Cluster) -> list[int]:
    """Largest first."""
    if model.heads is None or cluster.sliced:
        return [1]
    node = max(1, len(cluster.slots))
    inside = [n for n in range(min(node, model.heads), 0, -1) if model.heads % n == 0]
    across = [node * n for n in range(min(cluster.nodes, model.heads // node), 1, -1) if model.heads % (node * n) == 0]
    return across + inside


# More stages than this are not tried: each adds a step to every token.
_MOST_STAGES = 16


def _pipeline_sizes(model: ModelFacts, cluster: Cluster, tensor: int) -> list[int]:
    """Every number of stages that there are groups of `tensor` GPUs for, up to a limit."""
    if model.layers is None or cluster.sliced:
        return [1]
    node = len(cluster.slots)
    groups = node // tensor * cluster.nodes if tensor <= node else cluster.size // tensor
    return list(range(1, max(1, min(groups, model.layers, _MOST_STAGES)) + 1))


# Over more nodes than this no replicas share their experts: what they send each other outgrows what they save.
_MOST_NODES = 8


def _data_sizes(model: ModelFacts, cluster: Cluster, wishes: Wishes, tensor: int, pipeline: int) -> list[int]:
    """One replica, as many as a node has room for, and for those that share experts what lies between and beyond.

    Replicas of several stages only serve more requests, and share no experts that are worth it.
    """
    split, node = tensor * pipeline, len(cluster.slots)
    if cluster.sliced or (pipeline > 1 and (model.experts or wishes.goal != "throughput")):
        return [1]
    inside = node // split
    if not model.experts:
        return sorted({1, max(1, inside)})
    # Powers of two are among those of a smaller node too, so that one GPU more never takes a layout away.
    fitting = [inside, *(2**n for n in range(inside.bit_length()))]
    fitting += [inside * n if inside else node * n // split for n in (2, 4, _MOST_NODES) if n <= cluster.nodes]
    most = max(1, model.experts // tensor)
    return sorted({1, *(min(most, size) for size in fitting)} - {0})


def _expert_choices(model: ModelFacts, wishes: Wishes, ranks: int) -> list[bool]:
    if wishes.expert is not None:
        return [wishes.expert]
    return [False, True] if model.experts and ranks > 1 else [False]


def _context_choices(model: ModelFacts, wishes: Wishes, tensor: int) -> list[int]:
    """Off, and as far as it goes, where only copies of the cache are saved."""
    if wishes.decode_context:
        return [wishes.decode_context]
    if model.config is None or tensor == 1 or wishes.goal == "latency":
        return [1]
    shared = 1 if model.latent else rules.number(language(model.config), "num_key_value_heads")
    most = tensor // shared if shared and tensor % shared == 0 else 1
    return sorted({1, most})
