"""A signature that another implementation made is judged as what it is."""

from pathlib import Path

from nimctl.core.signatures import Material
from nimctl.trust.judging import Expected, judge
from nimctl.trust.keys import read_public

# Made by skopeo 1.18 of Debian 13 (`skopeo copy --sign-by-sigstore-private-key`), as it lay in the lab's registry.
DIGEST = "sha256:776e01e8938bafecb8ef7aca5ca7d3bd7c776a3ee29859f5be3da1c9ba5c2357"
PAYLOAD = (
    '{"critical":{"identity":{"docker-reference":"127.0.0.1:5055/open/trust-skopeo:1"},"image":{"docker-manifest-di'
    'gest":"sha256:776e01e8938bafecb8ef7aca5ca7d3bd7c776a3ee29859f5be3da1c9ba5c2357"},"type":"cosign container imag'
    'e signature"},"optional":{"creator":"containers/image 5.34.2","timestamp":1795379072}}'
)
SIGNATURE = "MEYCIQCZ99J8toNRUbHIYdml0mp/G5ME9CE51S6KsgAz5S8ygAIhAKYdA842H1IwfQwf70EPjmyY7x4PePEaDUHJL4QOuLkR"
PUBLIC = """\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYvZ0m5BG/yCDkDvh4KO+MjNtUVU0
Uwz6zO6faTlpSI6sJ6h0mHvP0Gcd89igMfRhvs8jKcX19mZgyQz5ErXo0Q==
-----END PUBLIC KEY-----
"""


def test_a_signature_of_skopeo_is_good(tmp_path: Path) -> None:
    path = tmp_path / "skopeo.pub"
    path.write_text(PUBLIC)
    material = Material("simple-signing", DIGEST, PAYLOAD.encode(), SIGNATURE)
    expected = Expected((DIGEST,), "127.0.0.1:5055/open/trust-skopeo")
    assert judge([material], expected, [read_public(path)], []).verdict == "good"
    other = Expected((DIGEST,), "127.0.0.1:5055/open/another")
    assert judge([material], other, [read_public(path)], []).verdict == "other-repository"
