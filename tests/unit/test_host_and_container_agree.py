"""The layout that a host plans is the layout that the container on it decides: same words in, same ranks out."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from entrypoint import engine
from entrypoint.model import Model, decide_layout, gpus_to_use
from entrypoint.settings import read
from nimctl.core.errors import NimctlError
from nimctl.core.layout import Layout
from nimctl.core.recipes import Architecture, Recipe, load
from nimctl.launch.model import RunOptions
from nimctl.launch.plan import make_plan
from tests.unit.launch.launch_hosts import IMAGE, gpus, host

architectures = st.builds(
    Architecture,
    attention_heads=st.sampled_from([1, 6, 8, 12, 40, 64, 96]),
    layers=st.sampled_from([1, 2, 61]),
    experts=st.just(0),
    moe_intermediate=st.sampled_from([0, 768, 2048]),
    quant_group=st.sampled_from([1, 32, 128]),
) | st.builds(Architecture, st.sampled_from([8, 64]), st.just(61), experts=st.just(8), moe_intermediate=st.just(2048))
sizes = st.sampled_from(["1", "2", "3", "4", "8", "16", "0", "two"])
flags = st.sampled_from(
    ["-tp", "--tensor-parallel-size", "--tensor_parallel_size", "-pp", "--pipeline-parallel-size", "-dp", "-dpl"]
)
options = (
    st.tuples(flags, sizes) | st.tuples(flags, sizes).map(lambda o: (f"{o[0]}={o[1]}",)) | st.just(("--seed", "-1"))
)
arguments = st.lists(options, max_size=3).map(lambda many: tuple(word for one in many for word in one))
variables = st.fixed_dictionaries(
    {},
    optional={
        "NIM_TENSOR_PARALLEL_SIZE": sizes,
        "NIM_PIPELINE_PARALLEL_SIZE": sizes | st.just(""),
        "NIM_PASSTHROUGH_ARGS": arguments.map(" ".join),
    },
)


def planned(recipe: Recipe, count: int, words: tuple[str, ...], env: dict[str, str], weights: str | None) -> Layout:
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
    layout = make_plan(wish, host(*gpus(count), runtime=True)).layout
    assert layout is not None
    return layout


def decided(recipe: Recipe, count: int, words: tuple[str, ...], env: dict[str, str], weights: str | None) -> Layout:
    settings = read({"NIM_RECIPE": recipe.name, **env}, words)
    inventory = host(*gpus(count)).gpus
    return decide_layout(
        settings,
        Model(recipe, weights or recipe.weights, recipe.served_names),
        "cuda" if count else "cpu",
        asked=engine.asked_sizes(settings),
        inventory=inventory,
        gpus=gpus_to_use(settings, inventory),
    )


@given(
    architectures,
    st.sampled_from([None, 2**30, 595_148_192_736]),
    st.integers(0, 9),
    arguments,
    variables,
    st.sampled_from([None, "/data/other"]),
)
def test_whatever_is_asked_host_and_container_decide_alike(
    architecture: Architecture,
    weights_bytes: int | None,
    count: int,
    words: tuple[str, ...],
    env: dict[str, str],
    weights: str | None,
) -> None:
    recipe = replace(load("demo"), architecture=architecture, weights_bytes=weights_bytes)
    outcomes: list[Layout | str] = []
    for decide in (planned, decided):
        try:
            outcomes.append(decide(recipe, count, words, env, weights))
        except NimctlError as error:
            # A variable that is no size: bad usage of the command line there, a bad configuration here.
            outcomes.append("usage" if error.id == "config-invalid" else error.id)
    assert outcomes[0] == outcomes[1]
    if isinstance(outcomes[0], Layout) and count:
        assert len(outcomes[0].used) == outcomes[0].world_size
