"""What a model takes of GPU memory, before anything is downloaded. Pure, and the same on the host and in the container.

`tensors` says which weights there are, `sharding` what of them a rank holds, `kv` what a token of context costs and how
many fit. All rules are those of the engine's pinned version; each names its source.
"""
