"""Locks to test with: one that is whole, and any that could be."""

from hypothesis import strategies as st

from nimctl.core.fetch.manifest import File
from nimctl.lock.model import (
    Lock,
    LockedContainer,
    LockedEngine,
    LockedGpus,
    LockedImage,
    LockedLayout,
    LockedOption,
    LockedRecipe,
    LockedWeights,
)

INDEX, MANIFEST, CONFIG, OTHER = (f"sha256:{digit * 64}" for digit in "abcd")
FILES = (
    File("config.json", 100, "git-sha1:" + "1" * 40),
    File("model.safetensors", 2**31, "sha256:" + "2" * 64),
    File("vision/part 1.safetensors", 7, None),
)

WHOLE = Lock(
    model="kimi-k2.5",
    nimctl="0.1.0",
    image=LockedImage(
        "registry.example:5000/nimctl/cuda:1",
        "linux/amd64",
        INDEX,
        CONFIG,
        {"linux/amd64": MANIFEST, "linux/arm64/v8": OTHER},
        {"io.nimctl.engine.version": "0.32.0"},
    ),
    recipe=LockedRecipe("kimi-k2.5", "3" * 64),
    gpus=LockedGpus(8, "NVIDIA H200"),
    engine=LockedEngine(
        "0.32.0",
        ("--max-model-len", "4096"),
        {
            "tensor-parallel-size": LockedOption("8", "profile"),
            "served-model-name": LockedOption(["a", "b"], "profile"),
            "limit-mm-per-prompt": LockedOption({"vision_chunk": 4}, "default"),
            "enforce-eager": LockedOption(False, "command line"),
        },
    ),
    container=LockedContainer(("ALL",), True, True, {"/tmp": "rw,exec"}, 2**30),
    weights=LockedWeights("hf://moonshotai/Kimi-K2.5:" + "5" * 40, "5" * 40, sum(file.size for file in FILES), FILES),
    layout=LockedLayout("vllm-int4-tp8-pp1", "4" * 64, 8, 1, arguments={"enable-expert-parallel": "true"}),
    variables={"NIM_LOG_LEVEL": "DEBUG", "MY_API_KEY": None},
)

_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cf")), max_size=12)
_word = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
_digest = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=5,
)
_options = st.dictionaries(_word, st.builds(LockedOption, _value, _word), max_size=4)


@st.composite
def _weights(draw: st.DrawFn) -> LockedWeights:
    paths = sorted(draw(st.sets(_word.map(lambda name: f"{name}/{name}.safetensors"), min_size=1, max_size=4)))
    digests = st.none() | _digest | st.from_regex(r"git-sha1:[0-9a-f]{40}", fullmatch=True)
    files = tuple(File(path, draw(st.integers(0, 2**45)), draw(digests)) for path in paths)
    return LockedWeights(f"hf://a/{draw(_word)}", draw(_word), sum(file.size for file in files), files)


@st.composite
def _layouts(draw: st.DrawFn) -> tuple[LockedLayout, LockedGpus]:
    tensor, pipeline = draw(st.integers(1, 16)), draw(st.integers(1, 4))
    arguments = draw(st.dictionaries(_word, _text, max_size=2))
    layout = LockedLayout(f"vllm-fp8-tp{tensor}-pp{pipeline}", "9" * 64, tensor, pipeline, arguments=arguments)
    return layout, LockedGpus(tensor * pipeline, draw(_word))


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    """Any lock that holds together."""
    layout, gpus = draw(_layouts())
    return Lock(
        model=draw(_word),
        nimctl=draw(_word),
        image=LockedImage(
            f"{draw(_word)}/{draw(_word)}:1",
            "linux/amd64",
            draw(st.none() | _digest),
            draw(_digest),
            draw(st.dictionaries(st.sampled_from(["linux/amd64", "linux/arm64/v8"]), _digest)),
            draw(st.dictionaries(_text, _text, max_size=3)),
        ),
        recipe=LockedRecipe(draw(_word), "8" * 64),
        gpus=gpus,
        engine=LockedEngine(
            draw(st.none() | _word), tuple(draw(st.lists(_word, max_size=3))), draw(st.none() | _options)
        ),
        container=LockedContainer(
            tuple(draw(st.lists(_word, max_size=2))),
            draw(st.booleans()),
            draw(st.booleans()),
            draw(st.dictionaries(_word, _word, max_size=2)),
            draw(st.integers(0, 2**40)),
        ),
        weights=draw(st.none() | _weights()),
        layout=layout,
        variables=draw(st.dictionaries(_word.map(str.upper), _word, max_size=3)),
    )
