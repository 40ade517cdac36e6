"""The rules of each route: what people's clients send passes, what is against a rule is told in one sentence."""

import contextlib
import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.api import bodies
from entrypoint.api.media import MediaLimits
from entrypoint.api.refusals import RefusedError
from entrypoint.api.rules import ROUTES, Limits, judge
from entrypoint.front.routes import table
from tests.lib.pictures import data_url, gif_head, jpeg_head, png_head

LIMITS = Limits(MediaLimits(images=4))
CHAT, COMPLETIONS, RESPONSES, MESSAGES = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
ENDLESS = {"$ref": "#"}
SEEN = {"type": "input_image", "detail": "auto", "image_url": data_url(png_head(9, 9))}
LOOPED = {"type": "input_image", "image_url": "http://[::1]/"}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
HI = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
ELSEWHERE = {"function": {"name": "f", "parameters": {"items": {"$ref": "#/components/schemas/X"}}}}
ELSEWHERE_TOO = {"name": "f", "input_schema": ELSEWHERE["function"]["parameters"]}
PICTURE = data_url(png_head(64, 64))

# As the OpenAI SDK, LangChain, Claude Code, Codex and curl send them.
GOOD = {
    CHAT: [
        {"model": "demo", "messages": HI},
        {"messages": HI, "stream": True, "stream_options": {"include_usage": True}, "n": 4, "stop": ["a", "b"]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]},
        {"messages": [{"role": "user", "content": [{"image_url": "https://example.org/a.jpg"}]}]},
        {
            "messages": [
                *HI,
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "weather"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "sunny"},
            ],
            "tools": [TOOL, {"type": "function", "function": {"name": "now"}}],
            "tool_choice": "auto",
        },
        {"messages": HI, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
        {"messages": HI, "structured_outputs": {"choice": ["yes", "no"]}, "logit_bias": {"5": -100}},
        {"messages": HI, "chat_template_kwargs": {"thinking": False}, "include_reasoning": False, "best_of": 1},
        {"messages": HI, "n": None, "best_of": 1},
        {"messages": [{**HI[0], "uuid": "m1"}]},
        {"messages": HI, "n": "2", "best_of": 2, "stream": "true", "include_reasoning": 1, "length_penalty": "1.5"},
        {"messages": [{"role": "user", "content": "\U0001f600 "}, {"role": "assistant", "content": ""}]},
    ],
    COMPLETIONS: [
        {"prompt": "Once"},
        {"prompt": ["a", "b"]},
        {"prompt": list(range(100))},
        {"prompt": [[1, 2], [3]]},
        {"prompt_embeds": "AAAA"},
    ],
    RESPONSES: [
        {"input": "hi"},
        {"input": "", "previous_response_id": "resp_1"},
        {
            "instructions": "You are Codex",
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
                {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
                {"type": "reasoning", "summary": [], "encrypted_content": None},
                {"type": "function_call", "call_id": "c", "name": "shell", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": [SEEN]},
                {"type": "local_shell_call", "call_id": "d", "action": {"type": "exec", "command": ["ls"], "env": {}}},
            ],
            "tools": [
                {"type": "function", "name": "shell", "parameters": SCHEMA},
                {"type": "web_search"},
                {"type": "custom", "name": "apply_patch", "format": {"type": "text"}},
                {"type": "local_shell"},
            ],
            "reasoning": {"effort": "medium", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "store": False,
            "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
        },
    ],
    MESSAGES: [
        {
            "max_tokens": 9,
            "system": [{"type": "text", "text": "You are", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "ls", "cache_control": {"type": "ephemeral"}}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": "s"},
                        {"type": "tool_use", "id": "t", "name": "Bash", "input": {"image_url": "http://127.0.0.1/"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t",
                            "content": [{"type": "image", "source": {"type": "url", "url": "https://example.org/a"}}],
                        }
                    ],
                },
            ],
            "tools": [{"name": "Bash", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            "metadata": {"user_id": "u"},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "context_management": {"edits": []},
        }
    ],
    "/tokenize": [{"prompt": ""}, {"messages": HI}],
    "/detokenize": [{"tokens": [1, 2]}],
}  # fmt: skip
GOOD["/v1/messages/count_tokens"] = GOOD[MESSAGES]


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, found in GOOD.items() for body in found])
def test_what_clients_send_passes_unchanged(path, body):
    for raw in (json.dumps(body).encode(), json.dumps(body, ensure_ascii=False).encode()):
        assert judge(path, raw, LIMITS).body is raw


def test_an_item_of_another_type_may_come_late_in_a_conversation():
    turns = [{"role": "user", "content": "hi"}] * 64
    judge(RESPONSES, json.dumps({"input": [*turns, {"type": "web_search_call", "id": "ws_1"}]}).encode(), LIMITS)


@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        ([{"type": "refusal", "refusal": "no"}], "no"),
        ([], ""),
        ([{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}], "ab"),
        ([{"type": "output_text", "text": "a"}], None),
        ([{"type": "input_image", "image_url": PICTURE, "text": 5}, {"type": "output_text", "text": "b"}], None),
        ("as text", None),
    ],
)
def test_what_the_model_said_earlier_is_one_text_to_the_engine(said, becomes):
    turns = [{"role": "user", "content": "hi"}, {"type": "message", "role": "assistant", "id": "m", "content": said}]
    body = json.dumps({"input": turns}).encode()
    judged = json.loads(judge(RESPONSES, body, LIMITS).body)
    if becomes is None:
        assert judged["input"] == turns
    else:
        assert judged["input"][1]["content"] == [{"type": "output_text", "text": becomes, "annotations": []}]


def test_a_picture_in_a_tool_result_gets_the_detail_that_the_engine_wants():
    shown = {"type": "input_image", "image_url": PICTURE}
    items = [{"type": "function_call_output", "call_id": "c", "output": [shown, {"type": "input_text", "text": "é"}]}]
    judged = judge(RESPONSES, json.dumps({"input": items}).encode(), LIMITS)
    items[0]["output"][0] = {**shown, "detail": "auto"}
    assert json.loads(judged.body) == {"input": items}


@pytest.mark.parametrize(
    ("path", "body", "constrained"),
    [
        (CHAT, {"messages": HI}, False), (CHAT, {"messages": HI, "tools": [TOOL]}, False),
        (CHAT, {"messages": HI, "tools": [TOOL], "tool_choice": "required"}, True),
        (CHAT, {"messages": HI, "tools": [{"function": {"name": "f", "strict": True}}]}, True),
        (CHAT, {"messages": HI, "tools": [ELSEWHERE], "tool_choice": "auto"}, False),
        (RESPONSES, {"input": "x", "tools": [{"type": "function", **ELSEWHERE["function"]}]}, False),
        (MESSAGES, {"messages": HI, "tools": [ELSEWHERE_TOO], "tool_choice": {"type": "auto"}}, False),
        (CHAT, {"messages": HI, "structured_outputs": {"regex": "a"}}, True),
        (RESPONSES, {"input": "x", "text": {"verbosity": "low"}}, False),
        (RESPONSES, {"input": "x", "text": {"format": {"type": "json_object"}}}, True),
        (MESSAGES, {"messages": HI, "output_config": {"effort": "low"}}, False),
        (MESSAGES, {"messages": HI, "tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "x"}}, True),
    ],
)  # fmt: skip
def test_whose_schema_the_engine_must_compile(path, body, constrained):
    assert judge(path, json.dumps(body).encode(), LIMITS).constrained is constrained


def test_every_route_that_takes_a_body_has_rules():
    open_routes = table(sagemaker=True, scale_out=True)
    taking = {route.upstream or route.path for route in open_routes if "POST" in route.methods and route.by == "engine"}
    assert {path for path in taking if "{" not in path} == set(ROUTES)  # cancelling takes none


def picture(url, kind="image_url"):
    return {"messages": [{"role": "user", "content": [{"type": kind, kind: {"url": url}}]}]}


def source(**more):
    return {"messages": [{"role": "user", "content": [{"type": "image", "source": more}]}]}


def says(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}]}


BAD = [
    # blank
    (CHAT, {"messages": []}, "messages is empty"), (CHAT, {}, "messages must be a list"),
    (CHAT, {"messages": None}, "must be a list"), (CHAT, {"messages": [{"role": "user", "content": " \n"}]}, "blank"),
    (CHAT, says({"type": "text", "text": ""}), "blank"), (CHAT, {"messages": [{"role": "user"}]}, "blank"),
    (COMPLETIONS, {"prompt": ""}, "blank"), (COMPLETIONS, {"prompt": "\t "}, "blank"), (COMPLETIONS, {}, "blank"),
    (COMPLETIONS, {"prompt": []}, "blank"), (COMPLETIONS, {"prompt": ["a", " "]}, "blank"),
    (COMPLETIONS, {"prompt": [[1], []]}, "blank"), (RESPONSES, {"input": " "}, "blank"), (RESPONSES, {}, "blank"),
    (RESPONSES, {"input": []}, "input is empty"), (RESPONSES, {"input": [{"role": "user", "content": ""}]}, "blank"),
    (MESSAGES, {"messages": []}, "messages is empty"),
    # shapes that crash the engine, or that it takes seconds and gigabytes to refuse
    (CHAT, {"messages": [1]}, r"messages\[0\] must be"), (CHAT, {"messages": [{"role": 5}]}, "role"),
    (CHAT, {"messages": HI * 5001}, "at most 5000"), (CHAT, says(1), "list of parts"),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, "list of parts"),
    (CHAT, {"messages": HI, "tools": [{"type": "function"}], "tool_choice": "required"}, r"tools\[0\]"),
    (COMPLETIONS, {"prompt": [1, "a"]}, "must be a text"), (COMPLETIONS, {"prompt": 5}, "must be a text"),
    (COMPLETIONS, {"prompt": [[1], [2, -1]]}, "must be a text"), (COMPLETIONS, {"prompt": [-1]}, "must be a text"),
    (COMPLETIONS, {"prompt": [True]}, "must be a text"), ("/detokenize", {"tokens": ["a"]}, "list of token ids"),
    (CHAT, {"messages": HI, "allowed_token_ids": [1, None]}, "list of token ids"),
    (CHAT, {"messages": HI, "vllm_xargs": {str(i): None for i in range(1025)}}, "vllm_xargs has 1025"),
    (CHAT, {"messages": HI, "tools": 5}, "tools must be a list"),
    (CHAT, {"messages": [*HI, {"role": "assistant", "tool_calls": [5]}]}, "tool_calls"),
    (CHAT, {"messages": HI, "structured_outputs": [1]}, "must be an object"),
    (RESPONSES, {"input": [{}] * 3}, r"input\[0\] must have role"), (RESPONSES, {"input": [1]}, "must be an object"),
    (RESPONSES, {"input": [{"role": "weird", "content": "x"}]}, "role must be one of"),
    (RESPONSES, {"input": [{"role": "user", "content": [{}]}]}, "part of the type None"),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "without text"),
    (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "c", "output": 5}]}, "output must be a text or"),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "text", "text": "x", "annotations": 5}]}]}, "annot"),
    (RESPONSES, {"input": [{"type": "reasoning", "summary": "x"}]}, "summary must be a list"),
    (RESPONSES, {"input": [{"role": "user", "content": "x", "id": 5}]}, "id must be a text"),
    (MESSAGES, says({"type": "image", "source": 5}), "source"), (MESSAGES, says({"type": "image"}), "source"),
    (RESPONSES, {"input": [{"type": "function_call", "name": 1}]}, "must have call_id"),
    (RESPONSES, {"input": [{"type": "weird"}] * 100}, r"input\[64\] is of the type 'weird'"),
    (RESPONSES, {"input": "x", "tools": [5]}, r"tools\[0\]"),
    # what would be ignored
    (CHAT, {"messages": HI, "guided_json": SCHEMA}, r"structured_outputs\.json"),
    (CHAT, {"messages": HI, "nvext": {"guided_regex": "a"}}, "nvext"),
    (CHAT, {"messages": HI, "functions": [{"name": "f"}]}, "use tools"),
    (CHAT, {"messages": HI, "best_of": 3}, "best_of"),
    (CHAT, {"messages": HI, "modalities": ["text", "audio"]}, "modalities"),
    (RESPONSES, {"input": "x", "response_format": {"type": "json_object"}}, r"text\.format"),
    (MESSAGES, {"messages": HI, "output_format": {"type": "json_schema"}}, r"output_config\.format"),
    (MESSAGES, {"messages": HI, "tools": [SEARCH]}, "web_search_20250305"),
    (MESSAGES, says({"type": "document", "source": {}}), "'document', which is not supported"),
    # absurd
    (CHAT, {"messages": HI, "n": 129}, "at most 128"), (COMPLETIONS, {"prompt": ["a"] * 20, "n": 100}, "at most 1024"),
    # what the engine reads as a number or as true
    (CHAT, {"messages": HI, "n": "16000"}, "n is 16000"), (CHAT, {"messages": HI, "n": "1_000.0"}, "n is 1000"),
    (COMPLETIONS, {"prompt": ["a"] * 20, "n": "100"}, "at most 1024"), (CHAT, {"messages": HI, "n": "inf"}, "n is inf"),
    (COMPLETIONS, {"prompt": ["a"] * 20, "n": 100.0}, "20 prompts with 100 answers"),
    (CHAT, {"messages": HI, "repetition_detection": {"max_pattern_size": "5000000"}}, "max_pattern_size"),
    (CHAT, {"messages": HI, "length_penalty": "1e300"}, "length_penalty"),
    (CHAT, {"messages": HI, "stream": 1, "include_reasoning": 0}, "include_reasoning"),
    (CHAT, {"messages": HI, "stream": "Yes", "include_reasoning": "off"}, "include_reasoning"),
    (CHAT, {"messages": HI, "best_of": "3"}, "best_of"), (CHAT, {"messages": HI, "n": 2, "best_of": 1}, "best_of"),
    (CHAT, {"messages": HI, "tools": [{"function": {**ELSEWHERE["function"], "strict": "true"}}]}, "not in the schema"),
    (CHAT, {"messages": HI, "stop": ["x" * 1025]}, "1024 characters"),
    (CHAT, {"messages": HI, "logit_bias": {str(i): 1 for i in range(5000)}}, "4096"),
    (CHAT, {"messages": HI, "request_id": "x" * 513}, "512 characters"),
    (CHAT, {"messages": HI, "repetition_detection": {"max_pattern_size": 10**9}}, "max_pattern_size"),
    (CHAT, {"messages": HI, "use_beam_search": True, "length_penalty": 1e300}, "length_penalty"),
    # schemas, wherever one can stand
    (CHAT, {"messages": HI, "structured_outputs": {"json": {}}}, r"structured_outputs\.json is empty"),
    (CHAT, {"messages": HI, "response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "not a JSON"),
    (CHAT, {"messages": HI, "response_format": {"type": "json_schema"}}, "not a JSON schema"),
    (CHAT, {"messages": HI, "response_format": {"type": "structural_tag", "format": {"schema": ENDLESS}}}, "end"),
    (CHAT, {"messages": HI, "tools": [{"function": {"name": "f", "parameters": ENDLESS}}]}, r"tools\[0\]\.function"),
    (CHAT, {"messages": HI, "tools": [ELSEWHERE], "tool_choice": "required"}, "not in the schema"),
    (CHAT, {"messages": HI, "tools": [{"function": {**ELSEWHERE["function"], "strict": True}}]}, "not in the schema"),
    (MESSAGES, {"messages": HI, "tools": [ELSEWHERE_TOO], "tool_choice": {"type": "any"}}, "not in the schema"),
    (RESPONSES, {"input": "x", "text": {"format": {"type": "json_schema", "schema": {}}}}, r"format\.schema is empty"),
    (RESPONSES, {"input": "x", "tools": [{"type": "function", "parameters": ENDLESS}]}, r"tools\[0\]\.parameters"),
    (MESSAGES, {"messages": HI, "output_config": {"format": {"schema": {}}}}, "is empty"),
    (MESSAGES, {"messages": HI, "tools": [{"name": "f", "input_schema": ENDLESS}]}, "input_schema refers"),
    # media
    (CHAT, picture("data:image/webp;base64,AA"), "GIF, JPG, JPEG or PNG"), (CHAT, picture("data:;base64,AA"), "GIF"),
    (CHAT, picture("data:image/png,AA"), "without base64"), (CHAT, picture("data:image/png;base64"), "without base64"),
    (CHAT, picture("data:image/png;base64,PGh0bWw+PGh0bWw+"), "is not one"),
    (CHAT, picture("data:image/png;base64,"), "is not one"),
    (CHAT, picture(data_url(png_head(10**5, 10**5))), "100000 x 100000"),
    (CHAT, picture(data_url(gif_head(1, 1, (60_000, 60_000)), "image/gif")), "60000 x 60000"),
    (CHAT, picture(data_url(jpeg_head(65_000, 65_000, 90_000), "image/jpg")), "65000 x 65000"),
    (CHAT, picture("http://127.0.0.1/a.png"), "not a public address"), (CHAT, picture("file:///etc/passwd"), "http"),
    (CHAT, picture("http://10.0.0.1/a.mp4", "video_url"), "not a public"), (CHAT, picture("x", "audio_url"), "http"),
    (CHAT, says({"type": "image_url", "image_url": None, "uuid": "x"}), "Media cannot have a uuid"),
    (CHAT, says({"type": "image_url", "image_url": {"url": PICTURE}, "uuid": "x"}), "Media cannot have a uuid"),
    (CHAT, says({"type": "text", "text": "a", "role": "user", "image_url": PICTURE, "uuid": 1}), "cannot have a uuid"),
    (CHAT, says({"type": "input_audio", "input_audio": None, "uuid": "x"}), "Media cannot have a uuid"),
    (RESPONSES, {"input": "x", "tools": [{"type": "mcp", "server_url": "http://x/"}]}, "type mcp"),
    (RESPONSES, {"input": "x", "tools": [{"type": "file_search"}]}, "OpenAI's servers"),
    (RESPONSES, {"input": "x", "previous_input_messages": [{}]}, "previous_input_messages"),
    (CHAT, says({"type": "image_pil", "image_pil": "x"}), "image_pil"),
    (CHAT, says({"type": "image_pil", "image_pil": None}), "image_pil"),
    (CHAT, says({"image_pil": None}), "image_pil"),
    (CHAT, says({"image_url": None}), "image_url"),
    ("/tokenize", says({"image_url": {"url": None}}), "image_url"),
    (CHAT, says({"video_url": None}), "video_url"),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "detail": "low"}]}]}, "no image_url"),
    (CHAT, {"messages": says({"image_url": "x"})["messages"] * 5}, "http"),
    (CHAT, {"messages": says({"image_url": PICTURE})["messages"] * 5}, "5 images, at most 4"),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "file_id"),
    (RESPONSES, {"input": [{"type": "function_call_output", "call_id": "c", "output": [LOOPED]}]}, "public"),
    (RESPONSES, {"input": [{"type": "computer_call_output", "output": LOOPED}]}, "public"),
    (MESSAGES, source(type="url", url="http://169.254.169.254/latest"), "public"),
    (MESSAGES, source(type="file", file_id="x"), "'base64' or 'url'"),
    (MESSAGES, source(type="base64", media_type="image/bmp", data="A"), "GIF"),
    ("/v1/messages/count_tokens", source(type="url", url="http://0/"), "public"),
    ("/tokenize", picture("http://0/"), "public"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "why"), BAD)
def test_what_is_refused_and_why(path, body, why):
    with pytest.raises(RefusedError, match=why) as refused:
        judge(path, json.dumps(body).encode(), LIMITS)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"), (b"{", "not JSON"), (b"[]", "not a JSON object"), (b"\xff", "not UTF-8: byte 0"),
        (b"\xef\xbb\xbf{}", "not JSON"), ('{"a":1}'.encode("utf-16"), "not UTF-8"), (b"[" * 100_000, "nested"),
        (b'{"a":NaN}', "NaN is not a number"), (b'{"a":[-Infinity]}', "-Infinity"), (b'{"a":1e999}', "too large"),
        (b'{"a":18446744073709551616}', "64 bits"), (b'{"a":' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"\\udc00":1}', "surrogate"),
        (b'{"a":["\\ud83d x \\ude00"]}', "surrogate"),
        (b'{"a":[' + b"{}," * 2**20 + b"{}]}", "more than 1048576 items"),
        (b'{"a":[' + b"{}," * 250_000 + b"{}]}", "more than 200000 values"),
        (b'{"a":' + b"[" * 90 + b"]" * 90 + b"}", "nested deeper than 80"),
        (b'{"a":[' + b"1," * 100 + b"18446744073709551616]}", "64 bits"),
    ],
)  # fmt: skip
def test_bodies_that_nobody_parses(body, why):
    with pytest.raises(RefusedError, match=why):
        judge(CHAT, body, LIMITS)


def test_a_body_may_be_as_large_as_the_server_says():
    body = json.dumps({"prompt": "x" * 100}).encode()
    with pytest.raises(RefusedError) as refused:
        bodies.parsed(body, 99)
    assert refused.value.status == 413
    assert bodies.parsed(body, len(body)) == {"prompt": "x" * 100}


WORDS = st.sampled_from(
    [
        "messages", "input", "prompt", "role", "content", "type", "text", "image_url", "url", "source", "tools",
        "function", "name", "parameters", "input_schema", "structured_outputs", "json", "regex", "response_format",
        "json_schema", "schema", "format", "output_config", "output", "n", "stop", "tool_calls", "data", "image",
        "repetition_detection",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=25,
)


@given(st.sampled_from(sorted(ROUTES)), st.dictionaries(WORDS, JSON, max_size=6))
def test_no_document_raises_anything_else(path, document):
    body = json.dumps(document).encode()
    try:
        judge(path, body, LIMITS)
    except RefusedError as refusal:
        assert str(refusal)


def places(value, trail=()):
    """The way to every value inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*trail, key)
        yield from places(one, (*trail, key))


SAMPLES = [(path, body, place) for path, found in GOOD.items() for body in found for place in places(body)]


@settings(max_examples=400)
@given(st.sampled_from(SAMPLES), JSON)
def test_no_wrong_value_in_a_good_document_raises_anything_else(sample, wrong):
    path, body, place = sample
    body = copy.deepcopy(body)
    inner = body
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = wrong
    with contextlib.suppress(RefusedError):
        judge(path, json.dumps(body).encode(), LIMITS)


@given(st.sampled_from(sorted(ROUTES)), st.binary(max_size=60))
def test_no_bytes_raise_anything_else(path, body):
    with pytest.raises(RefusedError):
        judge(path, b"[" + body, LIMITS)


TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(min_size=1).map(lambda t: f"a{t}")}
)


@given(st.lists(TURN, min_size=1), st.integers(1, 128), st.floats(0, 2), st.booleans())
def test_every_plain_conversation_passes(turns, n, temperature, stream):
    more = {"n": n, "temperature": temperature, "stream": stream, "max_tokens": 5}
    for path, body in ((CHAT, {"messages": turns}), (MESSAGES, {"messages": turns}), (RESPONSES, {"input": turns})):
        judge(path, json.dumps(body | more).encode(), LIMITS)
