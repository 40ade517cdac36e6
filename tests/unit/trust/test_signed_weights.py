"""Signed weights: what model_signing itself signed is judged file by file, in the layout of the cache."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from model_signing import hashing, signing

from nimctl.core.errors import NimctlError
from nimctl.core.fetch import File, Stop
from nimctl.core.fetch.sources.selection import choose
from nimctl.trust import keys
from nimctl.trust.judging import Judgement, RefusedError
from nimctl.trust.policy import Identity, Rule
from nimctl.trust.weights import compare, judgement, read_promise, state_of
from tests.lib.keyless_world import IDENTITY, ISSUER, World, key_from

PEM = serialization.Encoding.PEM


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return keys.generate(tmp_path_factory.mktemp("pair"), None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint as a folder of files, one of them empty, one below."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for name, content in [
        ("config.json", b"{}"),
        ("weights.safetensors", b"w" * 3000),
        ("sub/a.txt", b"a"),
        ("e", b""),
    ]:
        (folder / name).write_bytes(content)
    return folder


def sign(folder: Path, private: Path, config: hashing.Config | None = None, into: Path | None = None) -> Path:
    """Sign as the `model_signing` command does."""
    signature = into or folder / "model.sig"
    hashed = (config or hashing.Config()).set_ignored_paths(paths=[signature], ignore_git_paths=True)
    signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(hashed).sign(folder, signature)
    return signature


def as_in_cache(folder: Path) -> Path:
    """The same files as the cache lays them: names that are links to blobs."""
    snapshot = folder.parent / "repo" / "snapshots" / "main"
    blobs = folder.parent / "repo" / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    return snapshot


def verdict(folder: Path, signature: Path, rule: Rule) -> Judgement:
    try:
        promise = read_promise(signature, rule)
    except RefusedError as error:
        return Judgement(error.verdict, str(error))
    seen: dict[str, int] = {}
    found = compare(folder, signature, promise, on_bytes=lambda n, f: seen.update({f.path: n}), stop=Stop())
    return judgement(found, promise.by)


def by(public: Path) -> Rule:
    return Rule("here", weights=("**",), keys=(public,))


@pytest.mark.parametrize(
    "config",
    [
        hashing.Config,
        lambda: hashing.Config().use_file_serialization(hashing_algorithm="blake2"),
        lambda: hashing.Config().use_file_serialization(hashing_algorithm="blake3"),
        lambda: hashing.Config().use_shard_serialization(shard_size=1024),
    ],
    ids=["sha256", "blake2", "blake3", "shards"],
)
@pytest.mark.parametrize("layout", ["folder", "cache"])
def test_what_was_signed_is_good(
    config: Callable[[], hashing.Config], layout: str, model: Path, pair: tuple[Path, Path]
) -> None:
    signature = sign(model, pair[0], config())
    folder = as_in_cache(model) if layout == "cache" else model
    signature = folder / signature.name
    found = verdict(folder, signature, by(pair[1]))
    assert found.verdict == "good", found.why
    (folder / "weights.safetensors").resolve().write_bytes(b"w" * 2999 + b"W")
    found = verdict(folder, signature, by(pair[1]))
    assert found.verdict == "other-digest"
    assert "changed: weights.safetensors" in found.why


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: (m / "config.json").write_bytes(b"{}\n"), "changed: config.json"),
        (lambda m: (m / "sub/a.txt").unlink(), "missing: sub/a.txt"),
        (lambda m: (m / "model.py").write_bytes(b"import os"), "not signed: model.py"),
        (lambda m: (m / "sub/.hidden").write_bytes(b""), "not signed: sub/.hidden"),
        (lambda m: (m / "linked").symlink_to("/etc"), "not signed: linked"),
        (lambda m: (m / "dangling").symlink_to("/nowhere"), "not signed: dangling"),
        (lambda m: os.mkfifo(m / "pipe"), "not signed: pipe"),
        (lambda m: ((m / "e").unlink(), (m / "e").symlink_to("/nowhere")), "changed: e"),
        (lambda m: ((m / "e").unlink(), os.mkfifo(m / "e")), "changed: e"),
        (lambda m: (m / "weights.safetensors").write_bytes(b""), "changed: weights.safetensors"),
    ],
)
def test_what_differs_is_named(
    change: Callable[[Path], object], word: str, model: Path, pair: tuple[Path, Path]
) -> None:
    signature = sign(model, pair[0])
    change(model)
    found = verdict(model, signature, by(pair[1]))
    assert found.verdict == "other-digest"
    assert word in found.why


def test_another_key_and_what_is_no_signature(model: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    signature = sign(model, pair[0])
    other = keys.generate(tmp_path / "other", None)[1]
    assert verdict(model, signature, by(other)).verdict == "wrong-key"
    right = signature.read_bytes()
    for content in (b"", b"junk", b"{}", b"[" * 5000, right[: len(right) // 2]):
        signature.write_bytes(content)
        assert verdict(model, signature, by(pair[1])).verdict == "malformed"
    document = json.loads(right)
    document["dsseEnvelope"]["payload"] = "e30="
    signature.write_text(json.dumps(document))
    assert verdict(model, signature, by(pair[1])).verdict == "wrong-key"


def test_a_signature_beside_the_folder(model: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    signature = sign(model, pair[0], into=tmp_path / "result.sigstore")
    assert verdict(model, signature, by(pair[1])).verdict == "good"


def test_what_the_signer_left_out_is_told(model: Path, pair: tuple[Path, Path]) -> None:
    signature = sign(model, pair[0])
    (model / ".gitattributes").write_bytes(b"* text")
    promise = read_promise(signature, by(pair[1]))
    found = compare(model, signature, promise, on_bytes=lambda *_: None, stop=Stop())
    assert (found.whole, found.uncovered) == (True, (".gitattributes",))


def test_what_is_not_fetched_of_a_signed_checkpoint_does_not_count_and_is_named(
    model: Path, pair: tuple[Path, Path]
) -> None:
    for name in ("README.md", "pytorch_model.bin"):
        (model / name).write_bytes(b"signed, and no engine's")
    signature = sign(model, pair[0])
    files = [File(str(p.relative_to(model)), 1) for p in model.rglob("*") if p.is_file()]
    brought = {file.path for file in choose(files, "hf://org/model")}
    for file in files:
        if file.path not in brought:
            (model / file.path).unlink()
    assert signature.is_file()
    (model / "result.sigstore").write_bytes(b"one of somebody else")
    found = verdict(model, signature, by(pair[1]))
    assert found.verdict == "good", found.why
    assert "not fetched: README.md, e, pytorch_model.bin" in found.why
    assert "not covered: result.sigstore" in found.why
    (model / "weights.safetensors").unlink()
    found = verdict(model, signature, by(pair[1]))
    assert (found.verdict, "missing: weights.safetensors" in found.why) == ("other-digest", True)


def test_a_signer_may_not_leave_out_what_is_served(model: Path, pair: tuple[Path, Path]) -> None:
    signature = model / "model.sig"
    hashed = hashing.Config().set_ignored_paths(paths=[signature, model / "config.json"], ignore_git_paths=True)
    signing.Config().use_elliptic_key_signer(private_key=pair[0]).set_hashing_config(hashed).sign(model, signature)
    found = verdict(model, signature, by(pair[1]))
    assert (found.verdict, "not signed: config.json" in found.why) == ("other-digest", True)


def test_certificates(model: Path, tmp_path: Path) -> None:
    world = World()
    leaf = world.certificate(key_from(4).public_key(), IDENTITY, ISSUER)
    paths = {name: tmp_path / name for name in ("leaf.pem", "root.pem", "other.pem", "leaf.key")}
    paths["leaf.pem"].write_bytes(leaf.public_bytes(PEM))
    paths["root.pem"].write_bytes(world.root.public_bytes(PEM))
    paths["other.pem"].write_bytes(world.another().root.public_bytes(PEM))
    form = (PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths["leaf.key"].write_bytes(key_from(4).private_bytes(*form))
    signature = model / "model.sig"
    config = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=True)
    signing.Config().use_certificate_signer(
        private_key=paths["leaf.key"], signing_certificate=paths["leaf.pem"], certificate_chain=[paths["root.pem"]]
    ).set_hashing_config(config).sign(model, signature)

    def trusting(name: str) -> Rule:
        return Rule("here", weights=("**",), certs=(paths[name],))

    assert verdict(model, signature, trusting("root.pem")).verdict == "good"
    assert verdict(model, signature, trusting("other.pem")).verdict == "wrong-key"
    with pytest.raises(NimctlError, match="trust-invalid"):
        verdict(model, signature, trusting("leaf.key"))
    assert verdict(model, signature, by(paths["leaf.key"])).verdict == "wrong-key"  # keys do not check certificates


def test_keyless(model: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    signed = json.loads(sign(model, pair[0]).read_bytes())
    payload = base64.b64decode(signed["dsseEnvelope"]["payload"])
    signature = model / "model.sig"
    signature.write_bytes(World().bundle(payload))
    root = World().write_root(tmp_path / "root.json")

    def trusting(identity: str) -> Rule:
        return Rule("here", weights=("**",), keyless=(Identity(identity, ISSUER, root),))

    assert verdict(model, signature, trusting(IDENTITY)).verdict == "good"
    assert verdict(model, signature, trusting("https://other")).verdict == "wrong-identity"
    assert verdict(model, signature, by(pair[1])).verdict == "wrong-key"


def test_a_stopped_check_is_no_verdict(model: Path, pair: tuple[Path, Path]) -> None:
    signature = sign(model, pair[0])
    stop = Stop()
    stop.set()
    with pytest.raises(NimctlError, match="interrupted"):
        compare(model, signature, read_promise(signature, by(pair[1])), on_bytes=lambda *_: None, stop=stop)


def test_the_state_of_a_folder_changes_with_its_files(model: Path, pair: tuple[Path, Path]) -> None:
    signature = sign(model, pair[0])
    before = state_of(model, signature)
    assert state_of(model, signature) == before
    stat = (model / "config.json").stat()
    (model / "config.json").write_bytes(b"[]")  # as long as before, and its time set back
    os.utime(model / "config.json", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert state_of(model, signature) != before
