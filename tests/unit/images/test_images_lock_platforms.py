"""Whether a locked package can be installed on both platforms of the images."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
script = runpy.run_path(str(ROOT / "scripts/lock_platforms.py"))
A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.mark.parametrize(
    ("wheel", "machine", "there"),
    [
        ("x-1-py3-none-any.whl", "aarch64", True),
        ("x-1-py37-none-any.whl", "x86_64", True),
        ("x-1-py2.py3-none-any.whl", "x86_64", True),
        ("x-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "x86_64", True),
        ("x-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "aarch64", False),
        ("x-1-cp39-abi3-manylinux_2_28_aarch64.whl", "aarch64", True),
        ("x-1-cp312-abi3-manylinux_2_28_aarch64.whl", "aarch64", False),
        ("x-1-cp310-cp310-manylinux_2_28_aarch64.whl", "aarch64", False),
        ("x-1-cp311-cp311-manylinux_2_39_x86_64.whl", "x86_64", False),
        ("x-1-cp311-cp311-musllinux_1_2_x86_64.whl", "x86_64", False),
        ("x-1-cp311-cp311-macosx_11_0_arm64.whl", "aarch64", False),
    ],
)
def test_a_wheel_fits_by_its_tags(wheel: str, machine: str, there: bool) -> None:
    assert script["fits"](wheel, machine) is there


def test_what_has_no_wheel_of_a_locked_hash_is_named_with_its_platform(tmp_path: Path) -> None:
    def wheel(tags: str, digest: str) -> str:
        return f'{{ url = "https://x.example/p-1-{tags}.whl", hashes = {{ sha256 = "{digest}" }} }}'

    x86, arm = wheel("cp311-cp311-manylinux_2_28_x86_64", A), wheel("cp311-cp311-manylinux_2_28_aarch64", B)
    files = tmp_path / "pylock.toml"
    files.write_text(
        f'[[packages]]\nname = "both"\nwheels = [{x86}, {arm}]\n'
        f'[[packages]]\nname = "unlocked"\nwheels = [{x86}, {wheel("cp311-cp311-manylinux_2_28_aarch64", C)}]\n'
        f'[[packages]]\nname = "windows"\nmarker = "sys_platform == \'win32\'"\n'
        f'[[packages]]\nname = "x86only"\nmarker = "platform_machine == \'x86_64\'"\nwheels = [{x86}]\n'
        '[[packages]]\nname = "source"\n'
    )
    lock = f"both==1 \\\n    --hash=sha256:{A} \\\n    --hash=sha256:{B}\n"
    assert script["lacking"](files, lock) == [
        "unlocked (linux/arm64)",
        "source (linux/amd64)",
        "source (linux/arm64)",
    ]


def test_a_note_is_of_the_entries_and_of_no_others() -> None:
    lock = f"both==1 \\\n    --hash=sha256:{A}\n    # via x\n"
    noted = f"# title\n{script['note'](lock)}\n{lock}"
    assert script["is_noted"](noted)
    assert script["is_noted"](noted.replace("via x", "via y"))
    assert not script["is_noted"](noted.replace(A, B)) and not script["is_noted"](lock)
