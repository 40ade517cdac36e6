"""Which files of a remote checkpoint are fetched: what the engine loads, and nothing that runs code when it is. Pure.

vLLM reads safetensors, JSON, tokenizer files, chat templates and the model's own Python code:
https://docs.vllm.ai/en/latest/configuration/engine_args.html (`--load-format`),
https://huggingface.co/docs/transformers/custom_models.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from nimctl.core.errors import NimctlError
from nimctl.core.fetch.manifest import File

TENSORS = ".safetensors"
_WANTED = (TENSORS, ".json", ".jsonl", ".txt", ".model", ".py", ".jinja", ".jinja2", ".tiktoken", ".vocab", ".bpe",
           ".spm", ".yaml", ".yml")  # fmt: skip
# Loading one of these can run code that is in it: https://docs.python.org/3/library/pickle.html
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
# Weights for other engines.
_OTHERS = (".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".ggml", ".ot", ".tflite", ".npz", ".pdparams", ".nemo",
           ".mlmodel", ".engine", ".plan")  # fmt: skip
_MEDIA = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".bmp", ".pdf", ".mp3", ".mp4", ".wav", ".md", ".zip")
_TOKENIZER = re.compile(r"(tokenizer|vocab|merges|tekken)", re.IGNORECASE)  # such as tokenizer.model.v3
_LICENCE = re.compile(r"(licen[cs]e|notice|copying|use_policy|usage_policy)", re.IGNORECASE)
_DUPLICATES = "original"  # the authors' own format beside the one that engines load, as in meta-llama's repositories
_CONSOLIDATED = re.compile(r"consolidated.*\.safetensors(\.index\.json)?")
_MODEL = re.compile(r"model.*\.safetensors(\.index\.json)?")
_SHOWN = 5


def choose(files: Sequence[File], shown: str, *, only: Sequence[str] = ()) -> tuple[File, ...]:
    """The files of `files` to fetch, sorted by path; `shown` names the checkpoint in errors.

    `only` names exactly the files that are wanted. Raises `weights-pickle` where the weights are pickles,
    `weights-missing` where there are none, `weights-not-found` where one of `only` is not there.
    """
    if only:
        return _exactly(files, shown, only)
    chosen = [file for file in files if _wanted(file.path)]
    if any(_MODEL.fullmatch(file.path) for file in chosen):
        chosen = [file for file in chosen if not _CONSOLIDATED.fullmatch(file.path)]
    if not any(file.path.endswith(TENSORS) for file in chosen):
        raise _no_weights(files, shown)
    return tuple(sorted(chosen, key=_path))


def _wanted(path: str) -> bool:
    where = PurePosixPath(path)
    name = where.name.lower()
    if any(part.startswith(".") for part in where.parts) or where.parts[0] == _DUPLICATES:
        return False
    if name.endswith((*_PICKLES, *_OTHERS)):
        return False
    if name.endswith(".index.json"):  # that of pickles promises files that are not fetched
        return name.endswith(f"{TENSORS}.index.json")
    if _LICENCE.match(name):
        return True
    return name.endswith(_WANTED) or bool(_TOKENIZER.match(name) and not name.endswith(_MEDIA))


def _exactly(files: Sequence[File], shown: str, only: Sequence[str]) -> tuple[File, ...]:
    there = {file.path: file for file in files}
    if missing := [path for path in only if path not in there]:
        raise NimctlError(
            "weights-not-found",
            f"{shown} has no file {missing[0]!r:.200}",
            cause=f"`?file=` asks for it, and the {len(there)} files there have other names",
            fix="Correct the name after `?file=`, or leave it out to fetch what the engine needs.",
            evidence=sorted(there)[:_SHOWN],
        )
    if pickles := [path for path in only if path.lower().endswith(_PICKLES)]:
        raise _pickle(pickles, shown)
    return tuple(sorted((there[path] for path in set(only)), key=_path))


def _no_weights(files: Sequence[File], shown: str) -> NimctlError:
    def such(is_such: Callable[[str], bool]) -> list[str]:
        return sorted(file.path for file in files if is_such(file.path.lower()))

    if pickles := such(lambda path: path.endswith(_PICKLES)):
        return _pickle(pickles, shown)
    others = such(lambda path: path.endswith((*_OTHERS, TENSORS)))
    return NimctlError(
        "weights-missing",
        f"{shown} has no weights that can be served",
        cause=f"there is no *.safetensors file, only {', '.join(others[:3])}" if others
        else f"there is no *.safetensors file among its {len(files)} files",
        fix="Use a repository of the model that has safetensors; for another branch, add it as `:revision`.",
    )  # fmt: skip


def _pickle(pickles: Sequence[str], shown: str) -> NimctlError:
    return NimctlError(
        "weights-pickle",
        f"the weights of {shown} are pickle files",
        cause=f"there is no *.safetensors file in their place, only {', '.join(pickles[:3])}; "
        "loading a pickle runs its code",
        fix="Use a safetensors checkpoint of the model, or convert this one where running its code does no harm.",
        evidence=pickles[:_SHOWN],
    )


def _path(file: File) -> str:
    return file.path
