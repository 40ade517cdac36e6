"""What a machine's own configuration gives to a build."""

import subprocess
from pathlib import Path

import pytest

from nimctl.images.inputs import Inputs, detect, write_proxies
from tests.unit.images.build_hosts import configure_pip


def test_a_machine_without_settings_offers_nothing(machine: dict[str, str]) -> None:
    assert detect(machine) == Inputs(None, None, None)


def test_a_wheel_folder_without_wheels_is_passed_over(machine: dict[str, str], tmp_path: Path) -> None:
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "a-1-py3-none-any.whl").touch()
    env = {**machine, "PIP_FIND_LINKS": f"https://x.example/links {tmp_path}/empty file://{tmp_path}/full"}
    assert detect(env).wheels == tmp_path / "full"


@pytest.mark.parametrize("variable", ["PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_ca_bundle_is_found_under_each_usual_name(machine: dict[str, str], tmp_path: Path, variable: str) -> None:
    (tmp_path / "ca.pem").touch()
    assert detect({**machine, variable: str(tmp_path / "ca.pem")}).ca == tmp_path / "ca.pem"
    assert detect({**machine, variable: str(tmp_path / "gone.pem")}).ca is None


def test_the_environment_wins_over_pips_files(machine: dict[str, str], tmp_path: Path) -> None:
    configure_pip(machine, tmp_path, "[global]\ntimeout = 7\n[install]\nretries = 3\n")
    of_files, of_both = detect(machine).pip or {}, detect({**machine, "PIP_TIMEOUT": "90"}).pip or {}
    assert (of_files["timeout"], of_files["retries"]) == ("7", "3")
    assert (of_both["timeout"], of_both["retries"]) == ("90", "3")


def test_proxies_become_shell_for_the_users_eyes_alone(tmp_path: Path) -> None:
    password = "http://user:it's%20two@proxy:3128"
    path = write_proxies(tmp_path, {"https_proxy": password, "HTTPS_PROXY": "http://other", "NO_PROXY": "a,.b"})
    assert path is not None and path.stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(
        ["sh", "-c", f'. {path}; echo "$HTTPS_PROXY $https_proxy $no_proxy [$http_proxy]"'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout == f"{password} {password} a,.b []\n"
    assert write_proxies(tmp_path, {"https_proxy": "", "PATH": "/bin"}) is None


def test_no_proxy_is_an_argument_of_a_build() -> None:
    recipe = Path(__file__).parents[3] / "images"
    assert "_PROXY" not in (recipe / "docker-bake.hcl").read_text().replace("NIMCTL_BUILD_PROXY", "")
    steps = (recipe / "Dockerfile").read_text()
    assert steps.count("type=secret,id=proxy") == steps.count("type=secret,id=ca") > 5


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://reader:a+/=b@index.example/simple", "https://reader:a%2B%2F%3Db@index.example/simple"),
        ("https://reader:a%2Fb@index.example/simple", "https://reader:a%2Fb@index.example/simple"),
        ("https://reader@index.example/simple", "https://reader@index.example/simple"),
        ("https://index.example:8443/a@b/simple", "https://index.example:8443/a@b/simple"),
        ("https://index.example/a@b", "https://index.example/a@b"),
    ],
)
def test_a_password_in_an_address_is_written_so_that_pip_masks_it(
    machine: dict[str, str], written: str, meant: str
) -> None:
    """pip prints an address that it cannot take apart as it is, into the build's log and its errors."""
    found = detect({**machine, "PIP_INDEX_URL": written}).pip
    assert found is not None and found["index-url"] == meant
