"""The policy on images: who is asked, what is said, what is refused, and that a start needs no network for it."""

import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nimctl.cli import config as configuration
from nimctl.cli.config import Config
from nimctl.cli.proofs.images import image_name, prove_image
from nimctl.cli.proofs.proof import Proof
from nimctl.cli.proofs.signing import push_signatures
from nimctl.cli.proofs.weights import prove_before_start, prove_weights
from nimctl.core.errors import NimctlError
from nimctl.core.image_identity import ImageIdentity
from nimctl.render import Output
from nimctl.trust import keys
from nimctl.trust.signing import sign_image
from tests.lib.memory_registry import MemoryRegistry, memory_registry


@dataclass
class Desk:
    """A registry with one image, an own home with a configuration, and a pair of keys."""

    registry: MemoryRegistry
    home: Path
    private: Path
    public: Path
    digest: str

    @property
    def reference(self) -> str:
        return f"{self.registry.address}/open/trust:1"

    @property
    def name(self) -> str:
        return f"{self.registry.address}/open/trust"

    def identity(self, manifest: str | None = None) -> ImageIdentity:
        return ImageIdentity(self.reference, self.digest, manifest or self.digest, None, "linux/amd64")

    def sign(self, digest: str | None = None, image: str | None = None) -> None:
        push_signatures(image or self.reference, digest or self.digest, keys.read_private(self.private, None))

    def config(self, policy: str, rule: str | None = "keys: ../k/nimctl.pub", name: str | None = None) -> Config:
        file = self.home / "nimctl" / "config.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"trust:\n  - images: {name or self.name}\n    {rule}\n" if rule else "")
        return configuration.load({"verify": policy})

    def prove(self, config: Config, *, fresh: bool = True, built: bool = False) -> Proof:
        out = Output.choose("pull")
        identity = self.identity()
        return prove_image(identity, None, config, out, built=built, fresh=fresh)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("NIMCTL_VERIFY", raising=False)
    monkeypatch.chdir(tmp_path)
    private, public = keys.generate(tmp_path / "k", None)
    with memory_registry() as registry:
        yield Desk(registry, tmp_path, private, public, registry.image("open/trust", "1"))


def refused(desk: Desk, config: Config, *, fresh: bool = True) -> NimctlError:
    with pytest.raises(NimctlError) as raised:
        desk.prove(config, fresh=fresh)
    return raised.value


def test_a_signed_image_is_good(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.sign()
    proof = desk.prove(desk.config("require"))
    assert (proof.verdict, proof.digest) == ("good", desk.digest)
    assert proof.rule == f"{desk.home / 'nimctl' / 'config.yaml'}:2"
    assert "signed by key" in capsys.readouterr().out


def test_signing_again_adds_nothing_and_another_key_its_own(desk: Desk) -> None:
    key = keys.read_private(desk.private, None)
    other = keys.read_private(keys.generate(desk.home / "other", None)[0], None)
    pushed = [len(push_signatures(desk.reference, desk.digest, each)) for each in (key, key, other, key, other)]
    assert pushed == [2, 0, 2, 0, 0]
    (simple,) = (body for name, (_, body) in desk.registry.manifests.items() if name.endswith(".sig"))
    assert len(json.loads(simple)["layers"]) == 2


def test_what_require_refuses(desk: Desk) -> None:
    missing = refused(desk, desk.config("require"))
    assert (missing.id, missing.exit_code) == ("signature-missing", 5)
    desk.sign(digest=desk.registry.image("open/trust", architecture="s390x"))
    assert refused(desk, desk.config("require")).id == "signature-missing"  # a signature of another image is not there
    desk.sign()
    other = keys.generate(desk.home / "other", None)[1]
    wrong = refused(desk, desk.config("require", f"keys: {other}"))
    assert (wrong.id, wrong.exit_code) == ("signature-invalid", 5)
    assert "wrong-key" in wrong.message
    renamed = refused(desk, desk.config("require", "signed_as: nvcr.io/nim/x\n    keys: ../k/nimctl.pub"))
    assert "other-repository" in renamed.message


def test_without_a_rule_require_says_how_to_write_one(desk: Desk) -> None:
    error = refused(desk, desk.config("require", None))
    assert (error.id, error.exit_code) == ("trust-invalid", 2)
    assert f"images: {desk.name}, keys:" in error.fix


def test_without_a_rule_warn_asks_nobody_and_says_it_once(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    config = desk.config("warn", None)
    assert desk.prove(config).verdict == "no-rule"
    assert "not verified" in capsys.readouterr().out
    assert desk.prove(config, fresh=False).verdict == "no-rule"
    assert capsys.readouterr().out == ""
    assert desk.registry.seen == []


def test_off_and_built_here_ask_nobody(desk: Desk) -> None:
    assert desk.prove(desk.config("off")).verdict == "off"
    assert desk.prove(desk.config("require", None), built=True).verdict == "built-here"
    assert desk.registry.seen == []


def test_warn_says_it_and_goes_on(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.prove(desk.config("warn")).verdict == "none"
    assert "[signature-missing]" in capsys.readouterr().out


def test_a_key_that_is_not_there_is_an_error_whatever_the_policy(desk: Desk) -> None:
    desk.sign()
    assert refused(desk, desk.config("warn", "keys: nowhere.pub")).id == "trust-invalid"


def test_a_registry_that_does_not_answer(desk: Desk) -> None:
    desk.registry.lies[f"/v2/open/trust/referrers/{desk.digest}"] = (403, b"")
    assert desk.prove(desk.config("warn")).verdict == "unknown"
    assert refused(desk, desk.config("require")).exit_code in (4, 5)


def test_a_later_start_is_proved_without_a_network(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.sign()
    config = desk.config("require")
    desk.prove(config)

    def refuse(self: socket.socket, address: object) -> None:
        raise OSError(f"{address} was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert desk.prove(config, fresh=False).verdict == "good"
    other = keys.generate(desk.home / "other", None)[1]  # the bytes were kept, not the verdict
    assert refused(desk, desk.config("require", f"keys: {other}"), fresh=False).id == "signature-invalid"
    (payload,) = (desk.home / "nimctl" / "signatures" / desk.digest.replace(":", "-")).glob("01.*")
    payload.write_bytes(payload.read_bytes().replace(b"container", b"contained"))
    assert desk.prove(config, fresh=False).verdict == "good"  # the second form is whole
    (bundle,) = payload.parent.glob("02.*")
    bundle.write_bytes(b"{}")
    assert refused(desk, config, fresh=False).id == "signature-invalid"


def test_an_index_is_signed_and_its_manifest_starts(desk: Desk) -> None:
    manifest = desk.digest
    desk.digest = desk.registry.index("open/trust", {"amd64": manifest}, "1")
    index = desk.registry.manifests[f"open/trust/{desk.digest}"][1]
    desk.sign()
    config, out = desk.config("require"), Output.choose("pull")
    image = desk.identity(manifest)
    assert prove_image(image, None, config, out, documents=[index]).digest == desk.digest
    held = ImageIdentity(desk.reference, manifest, None, None, "linux/amd64")  # as an engine names it that pulled it
    assert prove_image(held, None, config, out, fresh=False).digest == desk.digest
    (kept,) = {path.parent for path in desk.home.rglob("signatures.json") if desk.digest[7:] in str(path)}
    shutil.rmtree(kept.parent)
    assert prove_image(image, None, config, out, fresh=False).digest == desk.digest  # the index is asked for again
    swapped = desk.identity("sha256:" + "0" * 64)
    with pytest.raises(NimctlError, match="signature-invalid"):
        prove_image(swapped, None, config, out, documents=[index])


def test_a_new_key_is_asked_for_where_the_kept_signatures_are_of_the_old_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.sign()
    desk.prove(desk.config("require"))
    desk.private, public = keys.generate(desk.home / "new", None)
    rotated = desk.config("require", f"keys: {public}")
    assert "wrong-key" in refused(desk, rotated, fresh=False).message
    desk.sign()
    assert desk.prove(rotated, fresh=False).verdict == "good"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # both are kept now
    assert desk.prove(rotated, fresh=False).verdict == "good"
    assert desk.prove(desk.config("require"), fresh=False).verdict == "good"
    error = refused(desk, desk.config("require", f"keys: {keys.generate(desk.home / 'third', None)[1]}"), fresh=False)
    assert error.id == "signature-invalid"
    assert f"nimctl pull {desk.reference}" in error.cause


def test_one_platform_does_not_hide_the_signatures_of_another(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = {"amd64": desk.digest, "arm64": desk.registry.image("open/trust", architecture="arm64")}
    desk.digest = desk.registry.index("open/trust", manifests, "1")
    index = desk.registry.manifests[f"open/trust/{desk.digest}"][1]
    config, out = desk.config("require"), Output.choose("pull")
    images = [
        ImageIdentity(desk.reference, desk.digest, found, None, f"linux/{name}") for name, found in manifests.items()
    ]
    for image in images:
        desk.sign(image.manifest)
        prove_image(image, None, config, out, documents=[index])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for image in images:
        assert prove_image(image, None, config, out, fresh=False).digest == image.manifest
        by_index = ImageIdentity(desk.reference, desk.digest, None, None, image.platform)  # as containerd's store says
        assert prove_image(by_index, None, config, out, fresh=False).digest == image.manifest


def test_an_image_without_a_digest_of_a_registry_is_not_signed(desk: Desk) -> None:
    loaded = ImageIdentity(desk.reference, None, None, "sha256:" + "c" * 64, "linux/amd64")
    with pytest.raises(NimctlError) as raised:
        prove_image(loaded, None, desk.config("require"), Output.choose("run"), fresh=False)
    assert (raised.value.id, "knows no digest" in raised.value.cause) == ("signature-missing", True)


def test_signatures_that_are_carried_are_judged_and_nobody_is_asked(desk: Desk) -> None:
    made = sign_image(keys.read_private(desk.private, None), desk.name, desk.digest)
    config, out = desk.config("require"), Output.choose("load")
    assert prove_image(desk.identity(), None, config, out, carried=made).verdict == "good"
    with pytest.raises(NimctlError, match="signature-missing"):
        prove_image(desk.identity(), None, config, out, carried=())
    assert desk.registry.seen == []


def test_a_project_may_ask_for_more_and_not_for_less(desk: Desk) -> None:
    user, project = desk.home / "nimctl" / "config.yaml", desk.home / "nimctl.yaml"
    user.parent.mkdir()
    user.write_text("verify: require\n")
    project.write_text("verify: off\ntrust: [{images: a/**, keys: k.pub}]\n")
    config = configuration.load({})
    assert (config.text("verify"), config.origin("verify")) == ("require", str(user))
    assert [path for path, data in config.trust if data] == [project]
    assert configuration.load({"verify": "off"}).text("verify") == "off"
    user.write_text("verify: off\n")
    project.write_text("verify: require\n")
    assert configuration.load({}).text("verify") == "require"


@pytest.mark.parametrize("word", ["off", "'off'", "'false'", "'No'", "FALSE", "warn"])
def test_no_spelling_of_a_project_asks_for_less(desk: Desk, word: str) -> None:
    user, project = desk.home / "nimctl" / "config.yaml", desk.home / "nimctl.yaml"
    user.parent.mkdir()
    user.write_text("verify: require\n")
    project.write_text(f"verify: {word}\n")
    assert configuration.load({}).text("verify") == "require"
    user.unlink()
    assert configuration.load({}).text("verify") == "warn"  # nor for less than what everybody gets
    for unreadable in ("never", "", "[off]", "true", "0"):
        project.write_text(f"verify: {unreadable}\n")
        with pytest.raises(NimctlError, match="config-invalid"):
            configuration.load({})


def test_a_project_does_not_say_what_satisfies_its_user(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.sign()
    user, project = desk.home / "nimctl" / "config.yaml", desk.home / "nimctl.yaml"
    user.parent.mkdir()
    project.write_text(f"verify: require\ntrust: [{{images: {desk.name}, keys: k/nimctl.pub}}]\n")
    assert desk.prove(configuration.load({})).verdict == "good"  # only the project requires it
    user.write_text("verify: require\n")
    by_file, by_flag = configuration.load({}), configuration.load({"verify": "require"})
    user.unlink()
    monkeypatch.setenv("NIMCTL_VERIFY", "require")
    for config in (by_file, by_flag, configuration.load({})):
        error = refused(desk, config)
        assert error.id == "trust-invalid"
        assert f"{project}:2 is the project's" in error.cause
    monkeypatch.delenv("NIMCTL_VERIFY")
    other = keys.generate(desk.home / "other", None)[1]
    user.write_text(f"trust: [{{images: {desk.name}, keys: {other}}}]\n")
    assert refused(desk, configuration.load({})).id == "signature-invalid"  # the user's rule is the one that counts


def test_weights_are_hashed_once_and_again_after_a_change(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    from model_signing import hashing, signing  # noqa: PLC0415 (a second of import for this test alone)

    folder = desk.home / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    config = hashing.Config().set_ignored_paths(paths=[folder / "model.sig"], ignore_git_paths=True)
    signer = signing.Config().use_elliptic_key_signer(private_key=desk.private).set_hashing_config(config)
    signer.sign(folder, folder / "model.sig")
    (desk.home / "nimctl").mkdir(exist_ok=True)
    rule = f"trust: [{{weights: {desk.home}/**, keys: {desk.public}}}]\n"
    (desk.home / "nimctl" / "config.yaml").write_text(rule)
    settings, out = configuration.load({"verify": "require"}), Output.choose("run")

    def prove() -> Proof | None:
        return prove_before_start(str(folder), settings, out)

    first, second = prove(), prove()
    assert first is not None
    assert second is not None
    assert (first.verdict, second.verdict) == ("good", "good")
    assert "unchanged" not in first.why
    assert "unchanged" in second.why
    (folder / "config.json").write_text("[]")
    with pytest.raises(NimctlError, match="signature-invalid"):
        prove()
    (folder / "config.json").write_text("{}")
    third = prove()
    assert third is not None
    assert "unchanged" not in third.why
    (folder / "model.sig").unlink()
    with pytest.raises(NimctlError, match="signature-missing"):
        prove()
    assert prove_weights("hf://other/model", folder, settings, out).verdict == "no-rule"
    assert json.dumps(third.to_json())
    capsys.readouterr()


def test_weights_without_a_rule_are_said_and_refused_where_others_of_their_kind_are_signed(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = desk.home / "nimctl" / "config.yaml", Output.choose("run")
    file.parent.mkdir()

    def start(policy: str, source: str) -> Proof | None:
        return prove_before_start(source, configuration.load({"verify": policy}), out)

    file.write_text(f"trust: [{{weights: hf://corp/**, keys: {desk.public}}}]\n")
    for source in ("ngc://org/model:1", "/data/model"):
        assert start("warn", source) is None
        proof = start("require", source)
        assert proof is not None
        assert (proof.verdict, f"{source}: not verified" in capsys.readouterr().out) == ("no-rule", True)
    assert start("warn", "hf://other/model") is None
    for prove in (
        start,
        lambda policy, uri: prove_weights(uri, desk.home, configuration.load({"verify": policy}), out),
    ):
        with pytest.raises(NimctlError) as raised:
            prove("require", "hf://other/model")
        assert (raised.value.id, "weights: hf://other/model" in raised.value.fix) == ("trust-invalid", True)


def test_an_image_has_one_name_whatever_its_registry_is_written_like() -> None:
    assert image_name("NVCR.IO:443/nim/x:1") == image_name("nvcr.io/nim/x") == "nvcr.io/nim/x"
    assert image_name("nvcr.io:5000/nim/x") == "nvcr.io:5000/nim/x"


def test_offline_nobody_is_asked_for_what_is_not_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.sign()
    warn = desk.config("warn")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    desk.registry.seen.clear()
    proof = desk.prove(warn, fresh=False)
    assert (proof.verdict, "HF_HUB_OFFLINE" in proof.why) == ("unknown", True)
    error = refused(desk, desk.config("require"), fresh=False)
    assert (error.id, "nimctl pull" in error.fix) == ("signature-missing", True)
    assert desk.registry.seen == []
    assert desk.prove(warn).verdict == "good"  # who pulls asks the registry in any case
    desk.registry.seen.clear()
    assert desk.prove(warn, fresh=False).verdict == "good"  # and what was kept then is enough
    assert desk.registry.seen == []
