"""The versions that a host needs, with the page that states them."""

# Software requirements of
# https://docs.nvidia.com/nim/large-language-models/latest/turbo/get-started-kimi-k2-5-turbo.html
DRIVER = "580"
CUDA = "12.9"
DOCKER = "24.0"
TOOLKIT = "1.14.0"
UBUNTU = "22.04"  # recommended, not required

# The first container toolkit without CVE-2026-24260, and the bulletin that says so.
SAFE_TOOLKIT = "1.19.1"
TOOLKIT_BULLETIN = "https://github.com/NVIDIA/product-security/blob/main/2026/5850/5850.md"
