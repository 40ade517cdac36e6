"""Which files of a remote checkpoint are fetched: what the engine loads, and nothing that runs code when it is. Pure.

vLLM reads safetensors, JSON, tokenizer files, chat templates and the model's own Python code:
https://docs.vllm.ai/en/latest/configuration/engine_args.html (`--load-format`),
https://huggingface.co/docs/transformers/custom_models.
"""

import re
from collections.abc import Callable, Iterable, Sequence
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
# Who signed the files above, for whoever checks it: no engine reads them, and they come along so that it can be checked
# where there is no network. https://github.com/sigstore/model-transparency
_SIGNATURES = (".sig", ".sigstore")
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
    wanted = needed(file.path for file in files)
    chosen = [file for file in files if file.path in wanted or is_signature(file.path)]
    if not any(file.path.endswith(TENSORS) for file in chosen):
        raise _no_weights(files, shown)
    return tuple(sorted(chosen, key=_path))


def needed(paths: Iterable[str]) -> frozenset[str]:
    """Those of the files at `paths` of one checkpoint that an engine reads."""
    wanted = frozenset(filter(_wanted, paths))
    if any(_MODEL.fullmatch(path) for path in wanted):
        wanted = frozenset(path for path in wanted if not _CONSOLIDATED.fullmatch(path))
    return wanted


def is_signature(path: str) -> bool:
    """Whether the file is fetched as the signature of a whole checkpoint: it lies beside the others, not below."""
    return "/" not in path and not path.startswith(".") and path.lower().endswith(_SIGNATURES)


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
