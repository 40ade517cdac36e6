"""Layers of engine options: what wins, what is put together, and where each value is said to come from."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nimctl.core.engine_options import Layer, Option, merge, object_of, options_of, parse_options, resolve

PLAIN = ("max-model-len", "max-num-seqs", "dtype", "seed")
FLAGS = ("enforce-eager", "enable-prefix-caching")
OBJECT = ("limit-mm-per-prompt", "compilation-config", "additional-config")

leaves = st.integers(0, 9) | st.text("ab", max_size=2) | st.booleans() | st.lists(st.integers(0, 3), max_size=2)
documents: Any = st.dictionaries(
    st.sampled_from("xyz"), leaves | st.dictionaries(st.sampled_from("uv"), leaves, max_size=2), max_size=3
)
values = (
    st.tuples(st.sampled_from(PLAIN), st.integers(0, 99).map(str))
    | st.tuples(st.sampled_from(FLAGS), st.booleans())
    | st.tuples(st.sampled_from(OBJECT), documents)
)
drafts: Any = st.fixed_dictionaries(
    {}, optional={"method": st.sampled_from(["a", "b"]), "model": st.sampled_from("xy"), "tokens": st.integers(0, 2)}
)
layers = st.lists(st.dictionaries(st.just(""), st.nothing()) | st.lists(values, max_size=5).map(dict), max_size=5)


def named(several: list[dict[str, Any]]) -> list[Layer]:
    return [Layer(f"layer {i}", options_of(one)) for i, one in enumerate(several)]


def joined(lower: Any, upper: Any) -> Any:
    """The meaning in the plainest words: key by key, objects within alike."""
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return upper
    return {
        k: joined(lower[k], upper[k]) if k in lower and k in upper else {**lower, **upper}[k] for k in lower | upper
    }


def meaning(option: Option) -> Any:
    document = object_of(option)
    if document is not None:
        return document
    return option.values[0] if option.values else not option.name.startswith("no-")


@given(layers)
def test_the_highest_layer_wins_and_objects_are_put_together_key_by_key(several: list[dict[str, Any]]) -> None:
    expected: dict[str, Any] = {}
    for one in several:
        for name, value in one.items():
            expected[name] = joined(expected.get(name), value) if name in OBJECT and name in expected else value
    found = resolve(named(several))
    assert {one.option.name.removeprefix("no-"): meaning(one.option) for one in found} == expected
    assert len(found) == len(expected), "each once"


@given(layers)
def test_every_value_is_said_to_come_from_the_highest_layer_that_says_it(several: list[dict[str, Any]]) -> None:
    sources = [f"layer {i}" for i in range(len(several))]
    for one in resolve(named(several)):
        name = one.option.name.removeprefix("no-")
        saying = [source for source, layer in zip(sources, several, strict=True) if name in layer]
        assert one.source == saying[-1]
        for key, source in one.parts.items():
            assert source == [s for s in saying if key in several[sources.index(s)][name]][-1]


@given(layers)
def test_what_is_resolved_is_settled(several: list[dict[str, Any]]) -> None:
    once = merge(*(layer.options for layer in named(several)))
    assert merge(once) == once
    assert merge(once, once) == once
    words = [word for option in once for word in option.words]
    assert merge(parse_options(words)) == once, "and reads as it was written"


@given(layers)
def test_layers_may_be_put_together_in_steps(several: list[dict[str, Any]]) -> None:
    everything = [layer.options for layer in named(several)]
    for cut in range(len(everything) + 1):
        assert merge(merge(*everything[:cut]), *everything[cut:]) == merge(*everything)


@given(st.lists(drafts, max_size=5))
def test_what_the_user_asks_may_be_put_together_before_it_goes_over_the_rest(several: list[dict[str, Any]]) -> None:
    everything = [options_of({"speculative-config": one}) for one in several]
    for cut in range(len(everything) + 1):
        assert merge(*everything[:cut], merge(*everything[cut:])) == merge(*everything)


def of(words: str) -> Layer:
    return Layer(words, parse_options(words.split()))


def only(*several: str) -> Any:
    (one,) = resolve(map(of, several))
    return meaning(one.option)


def test_in_one_layer_the_last_of_a_kind_counts():
    assert only("--max-num-seqs 1 --max_num_seqs=2") == "2"
    assert only("--enforce-eager --no-enforce-eager") is False
    assert only('--limit-mm-per-prompt {"image":1} --limit-mm-per-prompt {"video":2}') == {"video": 2}


def test_single_keys_go_over_the_object_of_their_own_layer_and_of_those_below():
    assert only('-cc {"mode":1,"a":2}', "-cc.mode 3 --compilation-config.pass_config.fuse true") == {
        "mode": 3,
        "a": 2,
        "pass_config": {"fuse": True},
    }
    assert only('--limit-mm-per-prompt {"image":1} --limit-mm-per-prompt.video 2') == {"image": 1, "video": 2}
    assert only("-cc.sizes+ 1,2 -cc.sizes+ 3 -cc.most 2k -cc.name x") == {
        "sizes": ["1", "2", "3"],
        "most": 2000,
        "name": "x",
    }


def test_an_object_about_another_thing_takes_the_place_of_the_whole():
    eagle = '-sc {"method":"eagle3","model":"org/draft","num_speculative_tokens":3}'
    assert only(eagle, '-sc {"num_speculative_tokens":5}')["model"] == "org/draft"
    assert only(eagle, '-sc {"method":"ngram","prompt_lookup_max":4}') == {"method": "ngram", "prompt_lookup_max": 4}
    found = only(eagle, '-sc {"num_speculative_tokens":5}', '-sc {"method":"ngram"}')
    assert found == {"num_speculative_tokens": 5, "method": "ngram"}, "what another layer asks of any draft stays"


def test_what_is_no_object_is_left_as_it_was_written():
    (one,) = resolve([of('--additional-config {"a":1}'), of("--additional-config nonsense")])
    assert one.option.words == ("--additional-config", "nonsense")
    (one,) = resolve([of("--additional-config nonsense"), of('--additional-config {"a":1}')])
    assert json.loads(one.option.values[0]) == {"a": 1}


def test_what_adds_up_adds_up():
    found = merge(parse_options(["--middleware", "a.B"]), parse_options(["--middleware", "c.D"]))
    assert [option.values for option in found] == [("a.B",), ("c.D",)]
