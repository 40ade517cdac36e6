"""The draft model of speculative decoding: found in the options, brought as the weights are, named by its folder."""

import json
import shlex
import signal
from dataclasses import replace

import pytest

from entrypoint.engine import drafts, invocation
from entrypoint.engine.model import named_model, with_draft
from entrypoint.settings import read
from entrypoint.weights.checkpoint import Checkpoint
from entrypoint.weights.supplies import require_room
from nimctl.core.cache import CachePaths
from nimctl.core.engine_options import Option, parse_options
from nimctl.core.errors import NimctlError
from nimctl.core.fetch import Access, Stop, snapshots
from nimctl.core.planning.model import of_checkpoint
from nimctl.core.recipes import Engine
from tests.lib.checkpoints import safetensors, write_folder
from tests.lib.fault_hub import TOKEN, FaultHub, Sparse, Stall
from tests.lib.mounts import mounted, tmpfs
from tests.lib.users import needs_root
from tests.unit.entrypoint.service import Service, needs_nginx, service, until
from tests.unit.entrypoint.test_download_to_cache import download, objects

pytestmark = needs_nginx

CONFIG = {"num_attention_heads": 64, "num_hidden_layers": 3}
FILES = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors(3_000_000)}
DRAFT = {"config.json": b'{"architectures": ["LlamaForCausalLMEagle3"]}', "model.safetensors": safetensors(500_000)}
BYTES, DRAFT_BYTES = (sum(map(len, files.values())) for files in (FILES, DRAFT))


@pytest.fixture
def hub():
    with FaultHub() as one:
        one.add_repo("org/name", FILES)
        yield one


def asked(model: str | None = "org/draft", method: str = "eagle3", **more: object) -> str:
    """`NIM_PASSTHROUGH_ARGS` that ask for a draft."""
    told = {"method": method, "num_speculative_tokens": 3, **more, **({"model": model} if model else {})}
    return f"--speculative-config {shlex.quote(json.dumps(told))}"


def drafting(hub: FaultHub, words: str | None = None, **environ: str):
    given = {"NIM_RECIPE": "", "NIM_GPUS": "none", "NIM_MODEL_PATH": "hf://org/name", "HF_ENDPOINT": hub.url}
    return service(**{**given, "NIM_PASSTHROUGH_ARGS": asked() if words is None else words, **environ})


def told(one: Service) -> dict:
    """The JSON that the engine was given."""
    argv = one.engine()["argv"]
    assert argv.count("--speculative-config") == 1
    return json.loads(argv[argv.index("--speculative-config") + 1])


def snapshot(one: Service, name: str, revision: str) -> str:
    repo = CachePaths(one.cache).repo(name)
    assert snapshots.complete(repo, revision) is not None
    return str(repo.snapshot(revision))


def weights(one: Service) -> dict:
    return next(stage for stage in one.startup()["stages"] if stage["name"] == "weights")


# What the options name


def named(*words: str) -> drafts.Draft | None:
    return drafts.named(parse_options(words))


@pytest.mark.parametrize(
    ("model", "address"),
    [
        ("org/draft", "hf://org/draft"),
        ("org/draft@v1", "hf://org/draft@v1"),
        ("hf://org/draft", "hf://org/draft"),
        ("ngc://org/team/draft:1", "ngc://org/team/draft:1"),
        ("s3://bucket/draft", "s3://bucket/draft"),
        ("/models/draft", "/models/draft"),
        ("file:///models/draft", "file:///models/draft"),
        ("gpt2", "hf://gpt2"),
    ],
)
def test_where_a_draft_comes_from(model, address):
    json_form = named("--speculative-config", json.dumps({"model": model, "method": "eagle3"}))
    assert json_form == drafts.Draft(model, address, "eagle3")
    equals_form = f"-sc={json.dumps({'model': model, 'method': 'eagle3'})}"
    single_keys = ("--speculative-config.model", model, "--speculative_config.method=eagle3")
    assert named(equals_form) == named(*single_keys) == json_form
    assert named("--spec-model", model, "--spec-method", "eagle3", "--spec-tokens", "3") == json_form


@pytest.mark.parametrize(
    "config",
    [
        {"method": "mtp", "num_speculative_tokens": 1},
        {"method": "ngram", "model": "ngram"},
        {"model": "[ngram]"},
        {"method": "suffix"},
        {"model": "my_package.Proposer"},
        {"method": "custom_class", "model": "my_package.Proposer"},
    ],
)
def test_what_proposes_without_a_model_of_its_own_is_left_alone(config):
    assert named("--speculative-config", json.dumps(config)) is None


def test_a_revision_goes_into_the_address():
    config = {"model": "org/draft", "method": "eagle3", "revision": "v2"}
    found = named("--speculative-config", json.dumps(config))
    assert found is not None
    assert found.address == "hf://org/draft@v2"
    at_hand = drafts.replaced(parse_options(["-sc", json.dumps(config)]), "/cache/draft")
    assert [json.loads(option.values[0]) for option in at_hand] == [{"model": "/cache/draft", "method": "eagle3"}]
    single = drafts.replaced(parse_options(["-sc.model", "org/draft", "-sc.revision=v2", "-sc.x", "1"]), "/d")
    assert [option.words for option in single] == [("--speculative-config.model", "/d"), ("-sc.x", "1")]
    assert drafts.replaced(parse_options(["--spec-model=org/draft"]), "/d")[0].words == ("--spec-model", "/d")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--speculative-config", "eagle3"], "it is no JSON"),
        (["--speculative-config", "[1]"], "it is no JSON object"),
        (["--speculative-config"], "it has no value"),
        (["-sc", '{"model": 7}'], "no text"),
        (["-sc", '{"model": ""}'], "no text"),
        (["-sc", '{"model": "a/b@v1", "revision": "v2"}'], "revision"),
        (["-sc", '{"model": "ngc://a/b:1", "revision": "v2"}'], "revision"),
    ],
)
def test_what_cannot_be_read_is_usage(words, cause):
    with pytest.raises(NimctlError, match="usage") as caught:
        named(*words)
    assert cause in caught.value.cause
    assert '"model": "org/name"' in caught.value.fix
    with pytest.raises(NimctlError, match="--speculative-config cannot be read"):
        invocation.request(read({"NIM_RECIPE": "demo", "NIM_PASSTHROUGH_ARGS": shlex.join(words)}))


def test_what_is_shown_has_no_password():
    found = named("-sc", '{"model": "https://me:canary@host/draft?sig=canary"}')
    assert found is not None
    assert found.source == "https://host/draft"


@pytest.mark.parametrize(
    ("model", "weights", "part"),
    [
        ("org/name", "hf://org/name", True),
        ("org/name", "hf://org/name@abc", True),
        ("org/name", "hf://org/name:abc?file=x", True),
        ("org/name@abc", "hf://org/name", False),
        ("org/name", "hf://org/name-2", False),
        ("/models/one", "/models/one", True),
    ],
)
def test_a_draft_within_the_weights(model, weights, part):
    found = named("-sc", json.dumps({"model": model, "method": "mtp"}))
    assert found is not None
    assert found.is_part_of(weights) is part


def test_the_size_that_was_seen_goes_before_the_recipes():
    model = named_model(read({"NIM_RECIPE": "kimi-k2.6"}))
    listed = model.recipe.drafts[0]
    assert listed.model is not None
    draft = drafts.Draft(listed.model.removeprefix("hf://"), listed.model, "eagle3")
    assert of_checkpoint(with_draft(model, draft, 77).recipe).drafts[0] == (draft.name, 77)
    assert with_draft(model, draft, None) is model


def test_a_recipes_own_draft_is_one_too():
    settings = read({"NIM_RECIPE": "demo"})
    model = named_model(settings)
    args = {"speculative-config": '{"model": "org/draft", "method": "eagle3"}'}
    recipe = replace(model.recipe, engine=Engine(common=replace(model.recipe.engine.common, args=args)))
    theirs = replace(model, recipe=recipe)
    assert invocation.draft_of(settings, theirs, "cuda") == drafts.Draft("org/draft", "hf://org/draft", "eagle3")
    other = read({"NIM_RECIPE": "demo", "NIM_PASSTHROUGH_ARGS": asked("me/other")})
    found = invocation.draft_of(other, theirs, "cuda")
    assert found is not None
    assert found.name == "me/other", "what is passed goes before it"


# What is brought


def test_a_draft_is_brought_and_named_by_its_folder(hub):
    commit = hub.add_repo("org/draft", DRAFT)
    with drafting(hub) as one:
        one.start().wait_ready()
        assert told(one) == {
            "method": "eagle3",
            "num_speculative_tokens": 3,
            "model": snapshot(one, "org/draft", commit),
        }
        stage = weights(one)
        assert (stage["bytes"], stage["total"]) == (BYTES + DRAFT_BYTES,) * 2
        assert f"the draft model hf://org/draft in {snapshot(one, 'org/draft', commit)}: 3.5 MB" in one.out
        assert one.get("/v1/manifest").json["source"] == "hf://org/name", "what is served is the model"
        asked_before = len(hub.requests())
        one.signal(signal.SIGTERM)
        assert one.code() == 143
        one._environ["HF_HUB_OFFLINE"] = "1"
        one.start().wait_ready()
        assert told(one)["model"] == snapshot(one, "org/draft", commit)
        assert len(hub.requests()) == asked_before


def test_the_draft_comes_first_and_counts(hub):
    hub.add_repo("org/draft", DRAFT)
    hub.fail("*.safetensors", Stall(after=1000))
    with drafting(hub) as one:
        one.start().wait_stage("weights")
        hub.wait_for_stalls()
        until(lambda: weights(one)["phase"] == "fetching" and weights(one)["bytes"])
        stage = weights(one)
        assert stage["total"] == BYTES + DRAFT_BYTES
        assert stage["bytes"] < DRAFT_BYTES
        assert not hub.requests("/org/name/*model.safetensors")
        one.signal(signal.SIGTERM)
        assert one.code() == 143


def test_a_folder_stays_where_it_is(hub, tmp_path):
    folder = write_folder(tmp_path / "draft")
    with drafting(hub, asked(str(folder))) as one:
        one.start().wait_ready()
        assert told(one)["model"] == str(folder)


def test_a_draft_that_is_the_model_itself_is_not_brought_twice(hub):
    with drafting(hub, asked("org/name", "mtp")) as one:
        one.start().wait_ready()
        argv = one.engine()["argv"]
        assert told(one)["model"] == argv[argv.index("serve") + 1]
        assert hub.bytes_sent("*.safetensors") < 2 * len(FILES["model.safetensors"])
        assert weights(one)["total"] == BYTES


def test_the_mirror_takes_the_place_of_its_source_too(hub, tmp_path):
    for name in ("name", "draft"):
        write_folder(tmp_path / "mirror/org" / name / "main")
    with drafting(hub, asked("org/draft@main"), NIM_REPOSITORY_OVERRIDE=str(tmp_path / "mirror")) as one:
        one._environ["NIM_MODEL_PATH"] = "hf://org/name@main"
        one.start().wait_ready()
        assert told(one)["model"] == str(tmp_path / "mirror/org/draft/main")
        assert hub.requests() == []


def test_the_key_opens_a_gated_draft(hub):
    hub.add_repo("org/draft", DRAFT, gated="auto")
    with drafting(hub, HF_TOKEN=TOKEN) as one:
        one.start().wait_ready()
        assert hub.knows(TOKEN)
        assert TOKEN not in one.out + one.err + json.dumps(one.engine())


# What is refused, and before what


def refused(one: Service, hub: FaultHub) -> dict:
    """The failure of a start that had fetched no weights."""
    one.start()
    one.code()
    assert not hub.requests("*.safetensors")
    return one.failure()


@pytest.mark.parametrize("gated", [None, "auto"], ids=["absent", "gated"])  # the Hub says the same to strangers
def test_a_draft_that_may_not_be_had_is_told_before_the_weights(hub, gated):
    if gated:
        hub.add_repo("org/draft", DRAFT, gated=gated)
    with drafting(hub) as one:
        failure = refused(one, hub)
        assert (failure["stage"], failure["error"]["id"], one.code()) == ("profile", "key-missing", 4)
        assert failure["error"]["message"].startswith("the draft model org/draft is not to be had: ")


def test_a_draft_that_is_not_there(hub):
    with drafting(hub, HF_TOKEN=TOKEN) as one:
        failure = refused(one, hub)
        assert (failure["stage"], failure["error"]["id"], one.code()) == ("profile", "weights-not-found", 6)
        assert "the draft model org/draft" in failure["error"]["message"]


def test_a_draft_of_pickles(hub):
    hub.add_repo("org/draft", {"config.json": b"{}", "pytorch_model.bin": b"no"})
    with drafting(hub) as one:
        assert refused(one, hub)["error"]["id"] == "weights-pickle"


def test_no_json(hub):
    with drafting(hub, "--speculative-config eagle3") as one:
        failure = refused(one, hub)
        assert (failure["error"]["id"], one.code()) == ("usage", 2)
        assert hub.requests() == []


def test_offline_without_the_draft(hub):
    with drafting(hub, "") as one:
        one.start().wait_ready().signal(signal.SIGTERM)
        assert one.code() == 143
        before = len(hub.requests())
        one._environ |= {"HF_HUB_OFFLINE": "1", "NIM_PASSTHROUGH_ARGS": asked()}
        one.start()
        assert one.code() == 6
        error = one.failure()["error"]
        assert error["id"] == "weights-offline"
        assert "the draft model org/draft" in error["message"]
        assert len(hub.requests()) == before


@needs_root
def test_the_room_is_that_for_both(hub, tmp_path):
    """A disk that holds either checkpoint, but not the two, is refused before the first tensor."""
    for seed, name in enumerate(("large", "draft")):
        files = {"config.json": FILES["config.json"], "model.safetensors": Sparse(20 * 2**20, seed)}
        hub.add_repo(f"org/{name}", files)
    with tmpfs(tmp_path / "disk", "size=32m") as disk:
        with drafting(hub, NIM_MODEL_PATH="hf://org/large", NIM_CACHE_PATH=str(disk)) as one:
            failure = refused(one, hub)
        assert (failure["stage"], failure["error"]["id"], one.code()) == ("profile", "disk-full", 9)
        assert "the weights and the draft model" in failure["error"]["message"]
        with drafting(hub, "", NIM_MODEL_PATH="hf://org/large", NIM_CACHE_PATH=str(disk)) as one:
            one.start().wait_ready()


def test_what_is_there_already_needs_no_room(hub, tmp_path):
    hub.add_repo("org/draft", DRAFT)
    access, cache = Access(hf_endpoint=hub.url), tmp_path / "cache"
    cache.mkdir()
    one = Checkpoint("hf://org/draft", cache, access, stop=Stop())
    one.look(lambda _: None)
    assert one.lacking() == len(DRAFT["model.safetensors"])
    partial = CachePaths(cache).repo("org/draft").partial / "w-1"
    partial.mkdir(parents=True)
    weights_file = next(file for file in one.manifest.files if file.path.endswith(".safetensors"))
    (partial / f"{weights_file.key}.data").write_bytes(b"\1" * 400_000)
    assert len(DRAFT["model.safetensors"]) - 401_408 <= one.lacking() <= len(DRAFT["model.safetensors"]) - 400_000
    one.bring(lambda _: None)
    assert one.lacking() == 0
    require_room(one, Checkpoint("builtin://demo", cache, access, stop=Stop()))
    one.close()


@needs_root
def test_a_read_only_cache_without_the_draft_is_refused(hub):
    hub.add_repo("org/draft", DRAFT)
    with drafting(hub, "") as one:
        one.start().wait_ready().signal(signal.SIGTERM)
        assert one.code() == 143
        with mounted(one.cache, "--bind", "-o", "ro", str(one.cache)):
            one._environ["NIM_PASSTHROUGH_ARGS"] = asked()
            one.start()
            assert one.code() == 9
            assert one.failure()["error"]["id"] == "cache-not-writable"


# The other actions


def test_the_dry_run_says_where_it_comes_from(hub):
    with drafting(hub) as one:
        one._arguments = ("--dry-run",)
        one.start()
        assert one.code() == 0, one.err
        document = json.loads(one.out)
        assert document["draft"] == {"name": "org/draft", "source": "hf://org/draft"}
        assert '"model": "hf://org/draft"' in document["engine"][document["engine"].index("--speculative-config") + 1]
        assert hub.requests() == []


def test_a_download_brings_the_draft_before_the_weights(hub, tmp_path):
    first, second = hub.add_repo("org/draft", DRAFT), hub.add_repo("org/name", FILES)
    environ = {"HF_ENDPOINT": hub.url, "NIM_MODEL_PATH": "hf://org/name", "NIM_PASSTHROUGH_ARGS": asked()}
    code, out, err = download(tmp_path / "c", "--json", **environ)
    assert code == 0, err
    done = [line for line in objects(out) if line["event"] == "done"]
    assert [(line["source"], line["revision"]) for line in done] == [
        ("hf://org/draft", first),
        ("hf://org/name", second),
    ]
    assert download(tmp_path / "c", **{**environ, "NIM_PASSTHROUGH_ARGS": asked("org/name", "mtp")})[0] == 0


def test_a_download_without_the_draft_brings_nothing(hub, tmp_path):
    environ = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "NIM_MODEL_PATH": "hf://org/name"}
    code, out, _ = download(tmp_path / "c", "--json", NIM_PASSTHROUGH_ARGS=asked(), **environ)
    assert (code, objects(out)[-1]["error"]["id"]) == (6, "weights-not-found")
    assert "the draft model org/draft" in objects(out)[-1]["error"]["message"]
    assert not hub.requests("*.safetensors")


def test_options_that_name_no_draft_are_passed_as_they_are():
    passed = Option("speculative-config", ("-sc", '{"method":"mtp"}'))
    settings = read({"NIM_RECIPE": "demo", "NIM_PASSTHROUGH_ARGS": shlex.join(passed.words)})
    assert invocation.draft_of(settings, named_model(settings), "cuda") is None
    assert passed in invocation.user_options(settings)
