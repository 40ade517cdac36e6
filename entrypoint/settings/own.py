"""The model of an image that nobody told which: NVIDIA's images serve the model that they are named after.

https://docs.nvidia.com/nim/large-language-models/latest/get-started/quickstart.html
"""

from collections.abc import Mapping

# By what the engine of the image was built for: the demo is the one that runs without GPU. Its profiles are those of
# the manifest that lies in the image.
OWN_MODELS: Mapping[str, str] = {"cpu": "demo", "cuda": "kimi-k2.5"}
