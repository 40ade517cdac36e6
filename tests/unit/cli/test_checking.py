"""Which address a repair opens: with the mirror's user where it is the mirror's, and never elsewhere."""

import pytest

from nimctl.cli import checking


@pytest.mark.parametrize(
    ("uri", "mirror", "opened"),
    [
        ("https://host/a/org/name/", "https://me:pass@host/a", "https://me:pass@host/a/org/name/"),
        ("https://host:8443/a/", "jfrog://me:pass@HOST:8443/a", "https://me:pass@host:8443/a/"),
        ("https://other/a/", "https://me:pass@host/a", "https://other/a/"),
        ("https://host:8443/a/", "https://me:pass@host/a", "https://host:8443/a/"),
        ("http://host/a/", "https://me:pass@host/a", "http://host/a/"),
        ("https://host/a/", "https://host/a", "https://host/a/"),
        ("hf://org/name:v1", "s3://bucket", "hf://org/name:v1"),
        ("https://host/a/", "https://me:pass@host:port/a", "https://host/a/"),
        ("hf://org/name", None, "hf://org/name"),
        ("builtin://demo", "/mnt/models", "builtin://demo"),
    ],
)
def test_the_mirrors_user_goes_to_the_mirror_alone(uri, mirror, opened):
    assert checking._with_user(uri, mirror) == opened
