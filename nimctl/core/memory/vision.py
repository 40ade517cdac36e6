"""The tensors of vision towers and of the projectors behind them. Pure."""

from nimctl.core.memory.listing import Listing
from nimctl.core.memory.settings import Settings, UnknownArchitecture

_CHANNELS = 3


def kimi(listing: Listing, tower: Settings, text_hidden: int) -> None:
    """Kimi's MoonViT, with the names of its settings as published (`vt_...`) or as transformers 5 writes them.

    https://huggingface.co/moonshotai/Kimi-K2.5/blob/main/config.json
    """
    width = tower.some("vt_hidden_size", "hidden_size")
    between = tower.some("vt_intermediate_size", "intermediate_size")
    height, breadth = (tower.some(f"init_pos_emb_{side}", f"pos_emb_{side}") for side in ("height", "width"))
    patch = tower.some("patch_size")
    listing.plain("vision_tower.patch_embed.proj.weight", width, _CHANNELS, patch, patch)
    listing.plain("vision_tower.patch_embed.proj.bias", width)
    listing.plain("vision_tower.patch_embed.pos_emb.weight", height, breadth, width)
    inside = "vision_tower.encoder.blocks.{layer}"
    for layer in range(min(tower.some("vt_num_hidden_layers", "num_hidden_layers"), 10_000)):
        for norm in ("norm0", "norm1"):
            _norm(listing, f"{inside}.{norm}", width, layer)
        listing.matrix(f"{inside}.wqkv", 3 * width, width, layer=layer, bias=True)
        listing.matrix(f"{inside}.wo", width, width, layer=layer, bias=True)
        listing.matrix(f"{inside}.mlp.fc0", between, width, layer=layer, bias=True)
        listing.matrix(f"{inside}.mlp.fc1", width, between, layer=layer, bias=True)
    _norm(listing, "vision_tower.encoder.final_layernorm", width, None)
    merged = width * _merged(tower)
    _norm(listing, "mm_projector.pre_norm", width, None)
    listing.matrix("mm_projector.proj.0", merged, merged, bias=True)
    listing.matrix("mm_projector.proj.2", text_hidden, merged, bias=True)


def _norm(listing: Listing, name: str, width: int, layer: int | None) -> None:
    listing.plain(f"{name}.weight", width, layer=layer)
    listing.plain(f"{name}.bias", width, layer=layer)


def _merged(tower: Settings) -> int:
    """How many patches the projector joins into one token."""
    sides = tower.found.get("merge_kernel_size")
    match sides:
        case [int(height), int(width)] if height > 0 and width > 0:
            return height * width
    raise UnknownArchitecture(f"{tower.where}: merge_kernel_size is {sides!r}, not two sizes")
