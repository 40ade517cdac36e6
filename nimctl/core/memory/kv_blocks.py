"""How many tokens a cache block holds by default: by kind of attention, device and dtype. Data, and two rules. Pure.

https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/platforms/cuda.py (the order in which backends are tried),
.../platforms/interface.py (the smallest size that the chosen one accepts), .../platforms/cpu.py
"""

from dataclasses import dataclass
from typing import Literal

from nimctl.core.memory.kv_specs import State, state_bytes

Attention = Literal["full", "latent", "sparse"]


@dataclass(frozen=True)
class BlockRule:
    """The block size where `attention` runs on `device`; None stands for any compute capability or dtype."""

    attention: Attention
    device: str
    majors: tuple[int, ...] | None
    dtypes: tuple[str, ...] | None
    block: int
    backend: str


FP8 = ("fp8", "fp8_e4m3", "fp8_e5m2")

# The first that matches decides.
RULES: tuple[BlockRule, ...] = (
    BlockRule("full", "cpu", None, None, 128, "CPU_ATTN"),
    BlockRule("latent", "cpu-amx", None, None, 128, "AMX_MLA"),
    BlockRule("latent", "cpu", None, None, 16, "CPU_MLA"),
    BlockRule("sparse", "cuda", None, None, 64, "FLASHMLA_SPARSE, FLASHINFER_MLA_SPARSE"),
    BlockRule("latent", "cuda", None, ("fp8_ds_mla", "nvfp4_ds_mla"), 64, "FLASHMLA_SPARSE"),
    BlockRule("latent", "cuda", (10,), None, 32, "FLASHINFER_MLA"),
    BlockRule("latent", "cuda", (9,), FP8, 64, "FLASHMLA"),
    BlockRule("latent", "cuda", (9,), None, 16, "FLASH_ATTN_MLA"),
    BlockRule("latent", "cuda", None, None, 16, "TRITON_MLA"),
    BlockRule("full", "cuda", (10,), None, 16, "FLASHINFER"),
    BlockRule("full", "cuda", None, None, 16, "FLASH_ATTN"),
)


def default_block(
    attention: Attention, dtype: str, *, device: str = "cuda", capability: tuple[int, int] = (0, 0)
) -> int:
    """Tokens of a block where the user names none. `device`: "cuda", "cpu", or "cpu-amx" for one with AMX tiles.

    ValueError where the engine has no backend that we know of.
    """
    for rule in RULES:
        here = rule.device == device or (device == "cpu-amx" and rule.device == "cpu")
        if (
            here
            and rule.attention == attention
            and (rule.majors is None or capability[0] in rule.majors)
            and (rule.dtypes is None or dtype in rule.dtypes)
        ):
            return rule.block
    raise ValueError(f"no block size is known for {attention} attention on {device}")


def hybrid_block(per_token: int, state: State, *, tensor: int, block: int, latent: bool = False) -> int:
    """The block size that makes an attention page hold a state, where a model has layers of both kinds.

    `per_token` are the bytes of a token in one attention layer on one rank, `block` the size that would be taken
    without states. Latent attention counts in 128s, which its kernels want.
    https://github.com/vllm-project/vllm/blob/v0.32.0/vllm/platforms/interface.py (_align_hybrid_block_size)
    """
    step = max(block, 128) if latent else block
    return step * -(-state_bytes(state, tensor) // (step * per_token))
