"""What is served, and on which GPUs: never a silent fallback."""

import json
from dataclasses import replace

import pytest

from entrypoint.engine import invocation
from entrypoint.engine.model import (
    decide_layout,
    engine_device,
    gpus_to_use,
    named_model,
    on_gpus,
    peeked,
    require_device,
)
from entrypoint.settings import read
from nimctl.core.errors import NimctlError
from nimctl.core.gpus import Gpu, GpuInventory
from nimctl.core.planning.cluster import cluster_of

NO_GPU = GpuInventory("no-library", "NVML Shared Library Not Found")
H200 = 143_771 * 2**20


def host(count, **change):
    return GpuInventory("ok", gpus=tuple(Gpu(i, name="NVIDIA H200", memory_total=H200, **change) for i in range(count)))


def settings(**environ):
    return read({"NIM_RECIPE": "demo", **environ})


def model_of(chosen):
    return peeked(chosen, named_model(chosen))


def layout(device, inventory, *words, **environ):
    chosen = read({"NIM_RECIPE": "demo", **environ}, words)
    model, request = named_model(chosen), invocation.request(chosen)
    cluster = cluster_of(gpus_to_use(chosen, inventory))
    require_device(chosen, model, device, inventory, cluster)
    model = peeked(chosen, on_gpus(chosen, model, device, cluster, request))
    return decide_layout(model, cluster, request).layout


def error_of(call):
    with pytest.raises(NimctlError) as caught:
        call()
    return caught.value.id


def cause_of(call):
    with pytest.raises(NimctlError) as caught:
        call()
    return caught.value.cause


def test_the_device_is_said_by_the_image_or_by_the_installed_version():
    assert engine_device(settings(NIMCTL_ENGINE_DEVICE="cuda"), "0.32.0+cpu") == "cuda"
    assert engine_device(settings(), "0.32.0+cpu") == "cpu"
    assert engine_device(settings(), "0.32.0") == "cuda"
    assert engine_device(settings(), None) == "cuda"


def test_two_gpus_are_two_ranks_on_either_engine():
    for device in ("cuda", "cpu"):
        assert layout(device, host(2)).name == "tp2-pp1"


def test_a_gpu_engine_without_gpu_is_an_error_also_on_request():
    assert error_of(lambda: layout("cuda", NO_GPU)) == "gpu-missing"
    assert error_of(lambda: layout("cuda", host(2), NIM_GPUS="none")) == "gpu-missing"


def test_a_gpu_under_mig_without_a_slice_is_told_as_that():
    assert error_of(lambda: layout("cuda", host(2, mig=True))) == "gpu-mig"


def test_the_cpu_only_for_the_demo_or_on_request():
    big = {"NIM_RECIPE": "kimi-k2.5"}
    assert layout("cpu", NO_GPU).world_size == 1
    assert error_of(lambda: layout("cpu", NO_GPU, **big)) == "gpu-missing"
    assert layout("cpu", NO_GPU, NIM_GPUS="none", **big).world_size == 1
    assert layout("cpu", NO_GPU, "-tp", "2").tensor_parallel_size == 2


def test_the_cpu_does_not_change_what_must_divide():
    assert error_of(lambda: layout("cpu", NO_GPU, "-tp", "3")) == "no-layout"


def test_stages_share_the_weights():
    big = {"NIM_RECIPE": "kimi-k2.5"}
    assert layout("cuda", host(8), "-tp", "4", "-pp", "2", **big).used == tuple(range(8))
    assert "weights of 140." in cause_of(lambda: layout("cuda", host(4), "-tp", "2", "-pp", "2", **big))


def test_gpus_that_were_given_up_are_not_used():
    assert layout("cpu", host(2), NIM_GPUS="none").used == ()


def test_a_list_chooses():
    assert [g.index for g in gpus_to_use(settings(NIM_GPUS="1,3"), host(4))] == [1, 3]
    assert [g.index for g in gpus_to_use(settings(NIM_GPUS="1"), host(4))] == [1], "an index and not a count"


def test_a_list_of_the_hosts_numbers_means_all_that_the_container_sees():
    assert [g.index for g in gpus_to_use(settings(NIM_GPUS="4,5"), host(2))] == [0, 1]


def test_bad_choices():
    assert error_of(lambda: gpus_to_use(settings(NIM_GPUS="9"), host(2))) == "gpu-spec-invalid"
    lost = replace(host(2), gpus=(*host(1).gpus, Gpu(1, name="NVIDIA H200", error="lost")))
    assert error_of(lambda: gpus_to_use(settings(), lost)) == "gpu-lost"
    mixed = GpuInventory("ok", gpus=(Gpu(0, name="A"), Gpu(1, name="B")))
    assert error_of(lambda: layout("cuda", mixed)) == "gpus-mixed"


def test_leftover_gpus_are_named():
    chosen = layout("cuda", host(3))
    assert (chosen.used, chosen.unused) == ((0, 1), (2,))


KIMI = {
    "use_unified_vision_chunk": True,
    "text_config": {
        "num_attention_heads": 64, "num_hidden_layers": 61, "n_routed_experts": 384, "moe_intermediate_size": 2048,
        "quantization_config": {"config_groups": {"group_0": {"weights": {"group_size": 32}}}},
    },
    "vision_config": {"num_attention_heads": 16},
}  # fmt: skip


def test_a_folder_is_believed_before_the_recipe(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 6, "num_hidden_layers": 2}))
    model = model_of(settings(NIM_MODEL_PATH=str(tmp_path)))
    assert model.recipe.config["num_attention_heads"] == 6
    assert layout("cuda", host(4), NIM_MODEL_PATH=str(tmp_path)).name == "tp3-pp1"
    assert "demo" in model.served_names
    assert not model.sees_images


def test_a_folder_alone_is_enough(tmp_path):
    folder = tmp_path / "My-Model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(KIMI))
    model = model_of(read({"NIM_MODEL_PATH": str(folder)}))
    assert (model.served_names, model.recipe.image_limit_key, model.sees_images) == (
        ("My-Model",),
        "vision_chunk",
        True,
    )
    assert model.recipe.config["text_config"]["n_routed_experts"] == 384


def test_a_source_alone_is_named_after_itself():
    for uri, name in {
        "hf://org/name@abc": "org/name",
        "hf://org/name:refs/pr/1?file=a": "org/name",
        "ngc://org/team/model:1.0": "org/team/model",
        "https://me:canary@host:8080/path?sig=canary": "host-8080/path",
        "builtin://demo": "demo",
    }.items():
        assert model_of(read({"NIM_MODEL_PATH": uri})).served_names == (name,)
    named = read({"NIM_MODEL_PATH": "hf://org/name", "NIM_SERVED_MODEL_NAME": "x,y"})
    assert model_of(named).served_names == ("x", "y")


def test_a_checkpoint_of_the_recipe_that_is_named_brings_its_own_options():
    model = named_model(settings(NIM_RECIPE="kimi-k2.5", NIM_MODEL_PATH="hf://nvidia/Kimi-K2.5-NVFP4"))
    assert model.recipe.format == "nvfp4"


def test_gpus_that_prefer_another_checkpoint_get_it_unless_one_was_named():
    b200 = cluster_of([Gpu(i, name="NVIDIA B200", compute_capability="10.0", memory_total=H200) for i in range(8)])
    for path, expected in ((None, "hf://nvidia/Kimi-K2.5-NVFP4"), ("hf://me/copy", "hf://me/copy")):
        chosen = settings(NIM_RECIPE="kimi-k2.5", **({"NIM_MODEL_PATH": path} if path else {}))
        assert on_gpus(chosen, named_model(chosen), "cuda", b200, invocation.request(chosen)).weights == expected


def test_nvidias_images_are_not_served_by_ours():
    assert error_of(lambda: model_of(settings(NIM_RECIPE="kimi-k2.5-turbo"))) == "config-invalid"


def test_a_revision_in_the_address_keeps_the_checkpoint_of_the_recipe() -> None:
    pinned = "hf://nvidia/Kimi-K2.5-NVFP4:" + "0" * 40
    model = named_model(settings(NIM_RECIPE="kimi-k2.5", NIM_MODEL_PATH=pinned))
    assert model.recipe.format == "nvfp4"
    assert model.weights == pinned
