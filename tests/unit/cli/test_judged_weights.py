"""The weights that are judged before a start are those that the container is told to serve."""

import json
from pathlib import Path

import pytest

from nimctl.cli import launching
from nimctl.cli.config import Config, load
from nimctl.cli.proofs.weights import judged_address, snapshot_of
from nimctl.core.cache import CachePaths, RepoPaths
from nimctl.core.fetch import open_source
from nimctl.core.fetch.manifest import File, Manifest
from nimctl.core.fetch.sources import override
from nimctl.render import Output
from tests.lib.checkpoints import write_folder

OLD, NEW = "1" * 40, "2" * 40


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in (override.VARIABLE, "NIMCTL_VERIFY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nimctl").mkdir()
    rules = "trust: [{weights: ['hf://org/**', 'ngc://org/**'], keys: k.pub}]\n"
    (tmp_path / "nimctl" / "config.yaml").write_text(rules)
    return load({"cache": tmp_path / "cache", "gpus": "none", "runtime": "process", "verify": "require"})


def held(uri: str, config: Config, *revisions: str, **refs: str) -> RepoPaths:
    """Whole revisions of the weights at `uri` in the cache, and the names that stand for one of them."""
    source = open_source(uri, config.cache)
    repo = CachePaths(config.cache).repo(source.repo, source.part)
    for revision in revisions:
        folder = write_folder(repo.snapshot(revision))
        (folder / "config.json").write_text('{"num_attention_heads": 2, "num_hidden_layers": 2}')
        files = tuple(File(path.name, path.stat().st_size) for path in sorted(folder.iterdir()))
        repo.markers.mkdir(parents=True, exist_ok=True)
        repo.marker(revision).write_text(json.dumps(Manifest(uri, revision, files).to_json()))
    for name, revision in refs.items():
        repo.ref(name).parent.mkdir(parents=True, exist_ok=True)
        repo.ref(name).write_text(revision)
    return repo


@pytest.mark.parametrize(("uri", "name"), [("hf://org/model", "main"), ("ngc://org/team/model", "latest")])
def test_it_is_the_revision_that_the_name_stands_for_and_no_other(uri: str, name: str, config: Config) -> None:
    held(uri, config, OLD)
    assert snapshot_of(uri, config) is None  # a container would ask for the present one, which nobody has seen
    assert judged_address(uri, config) == uri
    repo = held(uri, config, NEW, **{name: NEW})
    assert snapshot_of(uri, config) == repo.snapshot(NEW)
    assert judged_address(uri, config) == f"{uri}:{NEW}"
    assert judged_address(f"{uri}:{OLD}", config) == f"{uri}:{OLD}"
    assert snapshot_of(f"{uri}:{OLD}", config) == repo.snapshot(OLD)
    assert snapshot_of(f"{uri}:{NEW}?file=absent.json", config) is None


def test_what_no_rule_is_about_and_what_a_mirror_holds_stays(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    held("hf://other/model", config, OLD, main=OLD)
    assert judged_address("hf://other/model", config) == "hf://other/model"
    held("hf://org/model", config, OLD, main=OLD)
    assert judged_address("hf://org/model@main?file=config.json", config) == f"hf://org/model:{OLD}?file=config.json"
    assert judged_address("hf://org/model", load({"cache": config.cache, "verify": "off"})) == "hf://org/model"
    monkeypatch.setenv(override.VARIABLE, "https://mirror.test/a")
    assert judged_address("hf://org/model", config) == "hf://org/model"


def test_the_server_is_told_that_revision(config: Config) -> None:
    repo = held("hf://org/model", config, OLD, NEW, main=NEW)
    prepared = launching.prepare(launching.Asked("hf://org/model"), config, Output.choose("run", quiet=True))
    told = {variable.name: variable.value for variable in prepared.plan.env}
    assert told["NIM_MODEL_PATH"] == prepared.target.recipe.weights == f"hf://org/model:{NEW}"
    assert snapshot_of(prepared.target.recipe.weights, config) == repo.snapshot(NEW)
