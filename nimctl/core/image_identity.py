"""What exactly an image is: a name for people, and the digests by which it is checked, pulled, signed and started.

An image has up to three digests, https://github.com/opencontainers/image-spec/blob/main/spec.md: that of an index of
platforms, that of the manifest of one platform, and that of the configuration, which names every layer by the hash of
its content. Each names the next, so whoever trusts one of them knows the following ones.
"""

import re
from dataclasses import dataclass

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageIdentity:
    """One image for one platform.

    `reference` is what was asked for (`nvcr.io/nim/x:1.0`). `digest` is what it stands for in its registry: an index,
    or the manifest itself; None for an image that was built here and never pushed. `manifest` is that of `platform`
    (equal to `digest` where there is no index). `config` is the configuration's, None where
    only the manifest is known. `platform` is `linux/amd64`.
    """

    reference: str
    digest: str | None
    manifest: str | None
    config: str | None
    platform: str

    @property
    def digests(self) -> tuple[str, ...]:
        """Every digest by which a Docker Engine may call this image its own, without repetition.

        The classic image store calls it by `config`, containerd's by `manifest` or `digest`:
        https://docs.docker.com/engine/storage/containerd/
        """
        return tuple(dict.fromkeys(d for d in (self.digest, self.manifest, self.config) if d))
