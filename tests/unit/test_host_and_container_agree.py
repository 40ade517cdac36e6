"""The layout that a host plans is the layout that the container on it decides: same words in, same ranks out."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from entrypoint.engine import invocation
from entrypoint.engine.model import Model, decide_layout, gpus_to_use, on_gpus
from entrypoint.settings import read
from nimctl.core.errors import NimctlError
from nimctl.core.gpus import Gpu, MigDevice
from nimctl.core.layout import Layout
from nimctl.core.planning.cluster import cluster_of
from nimctl.core.recipes import Recipe, load
from nimctl.core.recipes.model import Variant
from nimctl.launch.model import RunOptions
from nimctl.launch.plan import make_plan
from tests.unit.launch.launch_hosts import IMAGE, host

GIB = 2**30

layers = st.sampled_from([1, 2, 24, 61])
heads = st.sampled_from([1, 6, 8, 12, 40, 64, 96])
dense = st.builds(
    lambda heads, shared, layers, context: {
        "architectures": ["LlamaForCausalLM"],
        "dtype": "bfloat16",
        "hidden_size": heads * 64,
        "intermediate_size": heads * 256,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // shared),
        "num_hidden_layers": layers,
        "vocab_size": 32000,
        "max_position_embeddings": context,
    },
    heads, st.sampled_from([1, 2, 8]), layers, st.sampled_from([2048, 131072, 1_000_000]),
)  # fmt: skip
experts = st.builds(
    lambda heads, layers, width, count: {
        "architectures": ["Qwen3MoeForCausalLM"],
        "dtype": "bfloat16",
        "hidden_size": 2048,
        "head_dim": 64,
        "intermediate_size": 4096,
        "moe_intermediate_size": width,
        "num_experts": count,
        "decoder_sparse_step": 1,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "num_hidden_layers": layers,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
    },
    heads, layers, st.sampled_from([768, 1536, 2047]), st.sampled_from([1, 8, 128]),
)  # fmt: skip
unknown = st.sampled_from(
    [{"architectures": ["Mystery"], "num_attention_heads": 8, "num_hidden_layers": 2}, {"num_attention_heads": "many"}]
)
configs: Any = dense | dense | experts | dense | experts | unknown | st.none()

good = st.sampled_from(["1", "2", "4", "8"])
sizes = good | good | good | st.sampled_from(["3", "16", "0", "two"])
flags = st.sampled_from(
    [
        "-tp",
        "--tensor-parallel-size",
        "--tensor_parallel_size",
        "-pp",
        "--pipeline-parallel-size",
        "-dp",
        "-dpl",
        "-dcp",
    ]
)
others = st.sampled_from(
    [
        ("--seed", "-1"), ("--max-model-len", "1024"), ("--max-model-len", "auto"), ("--max-model-len", "9M"),
        ("--gpu-memory-utilization", "0.5"), ("--gpu-memory-utilization", "0.9"),
        ("--gpu-memory-utilization", "7"), ("--kv-cache-dtype", "fp8"),
        ("--enable-expert-parallel",), ("--enforce-eager",), ("--max-num-seqs", "16"), ("--language-model-only",),
        ("--speculative-config.num_speculative_tokens", "4"), ("--no-speculative-config",),
    ]
)  # fmt: skip
options = st.tuples(flags, sizes) | st.tuples(flags, sizes).map(lambda o: (f"{o[0]}={o[1]}",)) | others
arguments = (st.just([]) | st.lists(options, max_size=3)).map(lambda many: tuple(word for one in many for word in one))
variables = st.fixed_dictionaries(
    {},
    optional={
        "NIM_TENSOR_PARALLEL_SIZE": sizes,
        "NIM_PIPELINE_PARALLEL_SIZE": sizes | st.just(""),
        "NIM_MAX_MODEL_LEN": st.sampled_from(["2048", "200000", "", "long"]),
        "NIM_PASSTHROUGH_ARGS": arguments.map(" ".join),
        "NIM_KV_CACHE_PERCENT": st.sampled_from(["0.5", "0.95", "", "9", "most"]),
        "NIM_GPU_MEM_FRACTION": st.sampled_from(["0.7"]),
        "NIM_MAX_BATCH_SIZE": st.sampled_from(["1", "64", "0"]),
        "NIM_DISABLE_CUDA_GRAPH": st.sampled_from(["1", "0", "maybe"]),
        "NIM_SPECDEC_ENABLE": st.sampled_from(["1", "0"]),
        "NIM_SPECDEC_ARGS": st.sampled_from(['{"method": "mtp"}', "[]", '{"num_speculative_tokens": 2}']),
        "NIM_PEFT_SOURCE": st.just("/data/adapters"),
        "NIM_MODEL_PROFILE": st.just("")
        | st.sampled_from(
            ["", "vllm-bf16-tp2-pp1", "vllm-bf16-tp1-pp1", "vllm-fp8-tp4-pp1", "vllm-bf16-tp2-pp2", "vllm-bf16-tp3-pp1"]
        ),
    },
)

memories = st.sampled_from([None, 2 * GIB, 16 * GIB, 48 * GIB, 80 * GIB, 80 * GIB, 141 * GIB, 141 * GIB])
slices = st.sampled_from(
    [(), (), (), (), (MigDevice("MIG-1", memory_total=20 * GIB), MigDevice("MIG-2", memory_total=20 * GIB))]
)


@st.composite
def gpus(draw: st.DrawFn) -> tuple[Gpu, ...]:
    """What NVML may say of up to nine GPUs, nulls included."""
    name = draw(st.sampled_from(["NVIDIA H200", "NVIDIA L40S", "NVIDIA GB10", "Card", None]))
    total, mig = draw(memories), draw(slices)
    share = draw(st.sampled_from([None, 0.01, 0.5, 0.85, 0.99, 0.99]))
    one = Gpu(
        0,
        name=name,
        compute_capability=draw(st.sampled_from([None, "8.0", "8.9", "9.0", "9.0", "10.0", "x"])),
        memory_total=total,
        memory_free=None if share is None or total is None else int(total * share),
        unified_memory=draw(st.sampled_from([None, False, False, True])),
        mig=bool(mig) or None,
        mig_devices=mig,
        nvlinks_up=draw(st.sampled_from([None, 0, 18])),
    )
    found = [replace(one, index=i, uuid=f"GPU-{i:08d}") for i in range(draw(st.integers(0, 9)))]
    if len(found) > 1 and draw(st.integers(0, 20)) == 0:
        found[-1] = replace(found[-1], name="Another")
    return tuple(found)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """A recipe with one or two checkpoints, known well, hardly, or not at all."""
    other = Variant("fp8", "hf://o/m-FP8", draw(st.sampled_from([None, GIB])), preferred_from="9.0")
    return replace(
        load("demo"),
        format="bf16",
        config=draw(configs),
        context=None,
        weights_bytes=draw(st.sampled_from([None, None, None, 2**30, 595_148_192_736])),
        variants=draw(st.sampled_from([(), (other,)])),
    )


def planned(
    recipe: Recipe, found: tuple[Gpu, ...], words: tuple[str, ...], env: dict[str, str], weights: str | None
) -> Layout:
    wish = RunOptions(
        recipe=recipe,
        name="run",
        cache=Path("/data/nim"),
        uid=1000,
        image=IMAGE,
        env=tuple(env.items()),
        engine_args=words,
        model_path=weights,
        secrets_dir=Path("/run/keys"),
    )
    layout = make_plan(wish, _host(found)).layout
    assert layout is not None
    return layout


def decided(
    recipe: Recipe, found: tuple[Gpu, ...], words: tuple[str, ...], env: dict[str, str], weights: str | None
) -> Layout:
    settings = read({"NIM_RECIPE": recipe.name, **({"NIM_MODEL_PATH": weights} if weights else {}), **env}, words)
    inventory, request = _host(found).gpus, invocation.request(settings)
    chosen = gpus_to_use(settings, inventory)
    cluster = cluster_of(chosen, memory_total=128 * GIB, memory_available=64 * GIB)
    model = Model(recipe, weights or recipe.weights, recipe.served_names)
    model = on_gpus(settings, model, "cuda" if chosen else "cpu", cluster, request)
    return decide_layout(model, cluster, request).layout


def _host(found: tuple[Gpu, ...]) -> Any:
    facts = host(*found, runtime=True)
    return replace(facts, system=replace(facts.system, memory_total=128 * GIB, memory_available=64 * GIB))


CASES: tuple[Any, ...] = (recipes(), gpus(), arguments, variables, st.sampled_from([None, "/data/other"]))


def outcomes(
    recipe: Recipe,
    found: tuple[Gpu, ...],
    words: tuple[str, ...],
    env: Mapping[str, str],
    weights: str | None,
) -> tuple[Layout | str, Layout | str]:
    """How the host ends and how the container: with a layout, or the id of an error."""
    ends: list[Layout | str] = []
    for decide in (planned, decided):
        try:
            ends.append(decide(recipe, found, words, dict(env), weights))
        except NimctlError as error:
            # A variable that is no size: bad usage of the command line there, a bad configuration here.
            ends.append("usage" if error.id == "config-invalid" else error.id)
    return ends[0], ends[1]


@given(*CASES)
def test_whatever_is_asked_host_and_container_decide_alike(
    recipe: Recipe,
    found: tuple[Gpu, ...],
    words: tuple[str, ...],
    env: Mapping[str, str],
    weights: str | None,
) -> None:
    host_ends, container_ends = outcomes(recipe, found, words, env, weights)
    assert host_ends == container_ends
    if isinstance(host_ends, Layout) and found and not found[0].mig:
        assert len(host_ends.used) == host_ends.world_size
