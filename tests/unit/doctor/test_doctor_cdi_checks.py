"""CDI specifications: which file Docker uses for which GPU, and whether it is of this host."""

import pytest

from nimctl.core import cdi
from nimctl.core.facts import CdiSpec
from nimctl.core.gpus import MigDevice
from tests.unit.doctor.hosts import HEALTHY, gpus, host, inventory, judge, verdicts, without_gpus

NAMES = (*map(str, range(8)), "all")


def spec(path="/etc/cdi/nvidia.yaml", devices=NAMES, **more):
    return CdiSpec(path, "nvidia.com/gpu", devices, **more)


def check(*specs, **parts):
    return judge("cdi", host(cdi=specs, **{"nvidia_kernel": {"module": "580.159.03"}, **parts}))


@pytest.mark.parametrize(
    "devices", [("all",), tuple(f"GPU-{i:08d}" for i in range(8)), tuple(f"gpu{i}" for i in range(8))]
)
def test_specifications_by_any_name_of_the_gpus_are_current(devices):
    assert verdicts(check(spec(devices=devices))) == [("pass", "cdi")]


def test_a_specification_of_the_libraries_is_not_stale_while_the_old_module_runs_on():
    updated = without_gpus("mismatch")
    assert verdicts(check(spec(driver="580.159.03"), nvidia_kernel={"module": "580.126.09"}, gpus=updated)) == [
        ("pass", "cdi")
    ]


def test_a_stale_specification_whose_files_are_gone_fails_once_where_it_is_the_only_way():
    stale = spec(driver="580.126.09", missing=("/usr/lib/libcuda.so.580.126.09",))
    only = {"docker": {"runtimes": ("runc",)}, "toolkit": {"hook": None}}
    assert verdicts(check(stale, **only)) == [("skip", "cdi")]
    assert verdicts(check(stale)) == [("warn", "cdi-stale")]


def test_no_specification_is_no_fault_where_gpus_have_another_way():
    assert verdicts(check()) == [("skip", "cdi")]
    assert verdicts(check(spec(), docker={"cdi_spec_dirs": None})) == [("pass", "cdi")]
    assert verdicts(check(spec(), docker={"cdi_spec_dirs": ("/run/elsewhere",)})) == [("pass", "cdi")]


def test_specifications_that_could_not_be_looked_at_are_unknown():
    assert verdicts(check(problems=("cdi: no answer in time",))) == [("unknown", "cdi")]


def test_a_broken_specification_of_nvidia_is_said_and_of_others_is_not():
    broken = CdiSpec("/etc/cdi/nvidia.yaml", problem="line 3: no")
    other = CdiSpec("/etc/cdi/vendor.yaml", problem="line 1: no")
    assert verdicts(check(broken, other)) == [("warn", "cdi-unreadable")]
    assert verdicts(check(other)) == [("skip", "cdi")]


@pytest.mark.parametrize(
    ("changes", "parts", "title"),
    [
        ({"devices": ("0", "1", "all")}, {}, "the CDI specification does not know GPU 2, 3, 4, 5, 6, 7"),
        ({"driver": "570.86.15"}, {}, "/etc/cdi/nvidia.yaml is of driver 570.86.15, and 580.159.03 is loaded"),
        (
            {"driver": "580.159.03"},
            {"nvidia_kernel": {"module": "580.105.08"}},
            "/etc/cdi/nvidia.yaml is of driver 580.159.03, and 580.105.08 is loaded",
        ),
        ({"missing": ("/usr/lib/libcuda.so.1",)}, {}, "/etc/cdi/nvidia.yaml names files that are not there"),
    ],
)
def test_a_specification_of_another_driver_or_other_gpus_is_stale(changes, parts, title):
    (finding,) = check(spec(**changes), **parts)
    assert (finding.verdict, finding.id, finding.title) == ("warn", "cdi-stale", title)
    assert finding.fix == "Write it anew: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


def test_the_current_driver_is_not_stale():
    (finding,) = check(spec(driver="580.159.03"))
    assert (finding.verdict, "driver 580.159.03" in finding.title) == ("pass", True)


def test_two_files_of_one_folder_clash_and_of_two_folders_do_not():
    (finding,) = check(spec(), spec("/etc/cdi/nvidia-old.yaml"), docker={"runtimes": ("nvidia", "runc")})
    assert (finding.verdict, finding.id) == ("warn", "cdi-duplicated")
    assert finding.evidence == ("/etc/cdi/nvidia-old.yaml", "/etc/cdi/nvidia.yaml")
    # The toolkit writes the second by itself, beside what was once written by hand.
    assert verdicts(check(spec(driver="570.1"), spec("/var/run/cdi/nvidia.yaml"))) == [("pass", "cdi")]


def test_a_clash_closes_the_way_and_takes_only_the_names_that_clash():
    facts = host(
        cdi=(spec(), spec("/etc/cdi/b.yaml", ("0", "all"))), docker={"runtimes": ("runc",)}, toolkit={"hook": None}
    )
    assert set(cdi.resolve(facts).clashes) == {"0", "all"}
    (finding,) = judge("gpu-runtime", facts)
    assert (finding.verdict, "both define GPU 0" in finding.cause) == ("fail", True)


def test_a_clash_counts_also_where_a_later_folder_defines_the_name():
    facts = host(cdi=(spec(), spec("/etc/cdi/b.yaml", ("0",)), spec("/var/run/cdi/nvidia.yaml")))
    assert "0" not in cdi.resolve(facts).used
    assert cdi.resolve(facts).used["1"].path == "/var/run/cdi/nvidia.yaml"


def test_files_that_are_gone_close_the_way():
    facts = host(cdi=(spec(missing=("/gone",)),), docker={"runtimes": ("runc",)}, toolkit={"hook": None})
    (finding,) = judge("gpu-runtime", facts)
    assert (finding.verdict, finding.id) == ("fail", "gpu-runtime-missing")
    assert finding.fix == "Write it anew: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    assert "/gone" in finding.cause
    assert verdicts(judge("cdi", facts)) == [("skip", "cdi")]


def test_the_later_folder_wins():
    facts = host(cdi=(spec("/var/run/cdi/nvidia.yaml", ("0", "all")), spec()))
    used = cdi.resolve(facts).used
    assert used["0"].path == "/var/run/cdi/nvidia.yaml"
    assert used["7"].path == "/etc/cdi/nvidia.yaml"
    assert cdi.names_of(facts.gpus.gpus, facts).path == "/var/run/cdi/nvidia.yaml"


def test_var_run_is_run():
    twice = (spec("/var/run/cdi/nvidia.yaml"), spec("/run/cdi/nvidia.yaml"))
    assert verdicts(check(*twice, docker={"cdi_spec_dirs": ("/etc/cdi", "/run/cdi")})) == [("pass", "cdi")]


def test_what_docker_itself_says_counts_more_than_the_files():
    """A rootless daemon does not see /etc/cdi of the host: https://github.com/moby/moby/issues/47676"""
    facts = host(docker={"cdi_devices": tuple(f"nvidia.com/gpu={n}" for n in range(4))})
    found = cdi.names_of(gpus(8), facts)
    assert [g.index for g in found.missing] == [4, 5, 6, 7]
    assert "its daemon cannot read the file" in found.problem
    assert cdi.names_of(gpus(8)[:2], facts).names == ("0", "1")


def test_a_host_that_is_well():
    assert verdicts(judge("cdi", HEALTHY)) == [("pass", "cdi")]


def test_only_what_the_toolkit_writes_is_written_anew():
    (finding,) = check(CdiSpec("/etc/cdi/nvidia.json", problem="line 3: no"))
    assert finding.fix == "Write it anew: sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.json"
    (finding,) = check(CdiSpec("/etc/cdi/nvidia-imex.yaml", problem="line 3: no"))
    assert finding.id == "cdi-unreadable"
    assert "generate" not in finding.fix and "Correct /etc/cdi/nvidia-imex.yaml" in finding.fix


def test_a_folder_with_spaces_is_quoted():
    folder = {"cdi_spec_dirs": ("/srv/my cdi",)}
    (finding,) = check(spec("/srv/my cdi/nvidia.yaml", driver="570.86.15"), docker=folder)
    assert finding.fix == "Write it anew: sudo nvidia-ctk cdi generate --output='/srv/my cdi/nvidia.yaml'"


def test_turning_cdi_on_says_what_the_restart_ends():
    (finding,) = check(spec(), docker={"cdi_spec_dirs": None})
    assert "running containers stop, because live-restore is off" in finding.evidence[0]


SLICED = gpus(8, mig=True, mig_devices=(MigDevice("MIG-a"),))


@pytest.mark.parametrize(
    ("devices", "names"),
    [
        (("0:0", "0:1", *map(str, range(1, 8)), "all"), ("0:0", "0:1")),
        (("mig0:0", *map(str, range(1, 8)), "all"), ("mig0:0",)),
        (("MIG-a", *map(str, range(1, 8)), "all"), ("MIG-a",)),
        (("0:0", "00:1", "10:0", *map(str, range(1, 8)), "all"), ("0:0",)),
    ],
)
def test_slices_stand_for_a_gpu_with_mig(devices, names):
    """The toolkit lists no GPU as a whole whose MIG is on."""
    mixed = (SLICED[0], *gpus(8)[1:])
    facts = host(cdi=(spec(devices=devices),), gpus=inventory(*mixed))
    assert verdicts(judge("cdi", facts)) == [("pass", "cdi")]
    assert cdi.names_of(mixed, facts).names == ("all",)
    assert cdi.names_of(mixed[:1], facts).names == names
    stale = spec(devices=tuple(name for name in devices if name != "7"))
    assert verdicts(judge("cdi", host(facts, cdi=(stale,)))) == [("warn", "cdi-stale")]


def test_a_gpu_with_mig_without_its_slices_is_missing_when_it_is_chosen_alone():
    facts = host(cdi=(spec(devices=(*map(str, range(1, 8)), "all")),), gpus=inventory(SLICED[0], *gpus(8)[1:]))
    assert cdi.names_of(facts.gpus.gpus, facts).names == ("all",)
    assert [g.index for g in cdi.names_of(facts.gpus.gpus[:1], facts).missing] == [0]
