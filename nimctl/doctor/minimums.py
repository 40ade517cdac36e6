"""The versions that a host needs, with the page that states them."""

# Software requirements of
# https://docs.nvidia.com/nim/large-language-models/latest/turbo/get-started-kimi-k2-5-turbo.html
DRIVER = "580"
CUDA = "12.9"
DOCKER = "24.0"
TOOLKIT = "1.14.0"
UBUNTU = "22.04"  # recommended, not required
