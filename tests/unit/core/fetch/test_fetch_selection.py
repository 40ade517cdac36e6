"""Which files are fetched: all that the engine loads, nothing whose loading runs code, nothing twice."""

import pytest

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.manifest import File
from nimctl.core.fetch.sources.selection import choose, needed


def files(*names: str) -> list[File]:
    return [File(name, 10) for name in names]


def chosen(*names: str, only: tuple[str, ...] = ()) -> list[str]:
    return [file.path for file in choose(files(*names), "org/name", only=only)]


def error_of(*names: str, only: tuple[str, ...] = ()) -> NimctlError:
    with pytest.raises(NimctlError) as caught:
        choose(files(*names), "org/name", only=only)
    return caught.value


NEEDED = [
    "LICENSE", "LICENSE.md", "Notice.txt", "USE_POLICY.md", "chat_template.jinja", "config.json",
    "configuration_deepseek.py", "generation_config.json", "merges.txt", "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors", "model.safetensors.index.json", "preprocessor_config.json", "qwen.tiktoken",
    "spiece.vocab", "sub/config.json", "sub/model.safetensors", "tekken.json", "tiktoken.model", "tokenizer.json",
    "tokenizer.model", "tokenizer.model.v3", "tokenizer_config.json", "vocab.json",
]  # fmt: skip
LEFT = [
    ".gitattributes", ".cache/huggingface/x.json", "README.md", "assets/plot.png", "figure.jpg", "tokenizer.png",
    "pytorch_model.bin", "pytorch_model.bin.index.json", "training_args.bin", "original/consolidated.00.pth",
    "original/params.json", "original/tokenizer.model", "tf_model.h5", "flax_model.msgpack", "rust_model.ot",
    "onnx/model.onnx", "onnx/model.onnx_data", "model-Q4_K_M.gguf", "scheduler.pt", "x.ckpt", "data.pkl",
    "consolidated.safetensors", "consolidated-00001-of-00002.safetensors", "consolidated.safetensors.index.json",
]  # fmt: skip


def test_what_the_engine_needs_is_chosen_and_nothing_else() -> None:
    assert chosen(*LEFT, *NEEDED) == sorted(NEEDED)


def test_the_signature_of_a_checkpoint_comes_with_it_and_is_no_weights() -> None:
    signed = ["model.safetensors", "model.sig", "result.sigstore"]
    assert chosen(*signed, "README.md", "sub/other.sig", ".hidden.sig") == signed
    assert error_of("model.sig", "config.json").id == "weights-missing"
    assert needed([*signed, "consolidated.safetensors"]) == {"model.safetensors"}


def test_the_authors_own_format_is_taken_where_it_is_the_only_one() -> None:
    names = ["consolidated.safetensors", "params.json", "tekken.json"]
    assert chosen(*names) == names


def test_pickles_alone_are_refused_by_name() -> None:
    error = error_of("config.json", "pytorch_model.bin", "README.md")
    assert (error.id, error.exit_code) == ("weights-pickle", 6) and "pytorch_model.bin" in error.cause


@pytest.mark.parametrize("names", [("config.json",), ("model.gguf",), (), ("original/model.safetensors",)])
def test_no_weights_are_said_to_be_missing(names: tuple[str, ...]) -> None:
    assert error_of(*names).id == "weights-missing"


def test_files_asked_for_by_name_are_all_that_is_chosen() -> None:
    assert chosen("config.json", "README.md", "a.safetensors", only=("README.md", "config.json")) == [
        "README.md",
        "config.json",
    ]
    assert error_of("config.json", only=("config.json", "absent.json")).id == "weights-not-found"
    assert error_of("config.json", "x.bin", only=("x.bin",)).id == "weights-pickle"
