"""The start on simulated GPUs: the real pynvml, the real entrypoint, a stand-in engine."""

import pytest

from tests.lib.lab import double_environment
from tests.unit.entrypoint.service import needs_nginx, service

pytestmark = needs_nginx


@pytest.fixture
def simulated(tmp_path):
    """The variables that make NVML see a host, such as `simulated("2xH200")`."""

    def variables(profile):
        whole = double_environment(profile, tmp_path)
        return {name: whole[name] for name in ("LD_LIBRARY_PATH", "NVML_DOUBLE_JSON")}

    return variables


@pytest.mark.parametrize(("profile", "size"), [("2xH200", "2"), ("8xH200", "8")])
def test_every_gpu_gets_a_rank(simulated, profile, size):
    with service(**simulated(profile)) as one:
        one.start().wait_ready()
        argv = one.engine()["argv"]
        assert argv[argv.index("--tensor-parallel-size") + 1] == size
        assert one.startup()["layout"] == f"tp{size}-pp1"
        metadata = one.get("/v1/metadata").json
        assert (metadata["tensorParallelSize"], metadata["gpus"]) == (int(size), int(size))
        assert "the layout is rehearsed" in one.out


def test_gpus_that_do_not_fit_are_named(simulated):
    with service(NIM_TENSOR_PARALLEL_SIZE="1", **simulated("2xH200")) as one:
        one.start().wait_ready()
        assert "unused: GPU 1 (NVIDIA H200)" in one.out


def test_the_engine_sees_the_gpus_that_were_asked_for(simulated):
    with service(NIMCTL_ENGINE_DEVICE="cuda", NIM_GPUS="2,3", CUDA_VISIBLE_DEVICES="0", **simulated("4xH200")) as one:
        one.start().wait_ready()
        assert one.engine()["environ"]["CUDA_VISIBLE_DEVICES"] == "2,3"
        assert "CUDA_VISIBLE_DEVICES=0 is replaced by 2,3" in one.out


def test_pipeline_stages_have_gpus_of_their_own(simulated):
    arguments = ("nim-serve", "-tp", "2", "-pp", "2")
    with service(arguments=arguments, NIMCTL_ENGINE_DEVICE="cuda", **simulated("8xH200")) as one:
        one.start().wait_ready()
        assert one.engine()["environ"]["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
        assert one.startup()["layout"] == "tp2-pp2"


def test_given_up_on_request(simulated):
    with service(NIM_GPUS="none", **simulated("2xH200")) as one:
        one.start().wait_ready()
        assert one.startup()["layout"] == "tp1-pp1"


def test_too_many_asked(simulated):
    with service(NIM_TENSOR_PARALLEL_SIZE="4", **simulated("2xH200")) as one:
        one.start()
        assert one.code() == 7
        assert one.failure()["error"]["id"] == "no-layout"


@pytest.mark.parametrize(
    ("profile", "device", "error_id", "code"),
    [
        ("lost", "cuda", "gpu-lost", 3),
        ("mixed", "cuda", "gpus-mixed", 7),
        ("mismatch", "cuda", "gpu-missing", 3),
    ],
)
def test_broken_hosts(simulated, profile, device, error_id, code):
    with service(NIMCTL_ENGINE_DEVICE=device, **simulated(profile)) as one:
        one.start()
        assert one.code() == code
        assert one.failure()["error"]["id"] == error_id
