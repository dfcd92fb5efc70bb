"""What a YAMNet checkpoint is made of: sizes of the layers."""

from dataclasses import dataclass, field

PUBLISHED_BLOCKS = [
    [64, 1], [128, 2], [128, 1], [256, 2], [256, 1], [512, 2],
    [512, 1], [512, 1], [512, 1], [512, 1], [512, 1], [1024, 2], [1024, 1],
]  # fmt: skip


@dataclass(kw_only=True)
class YamnetArchitecture:
    """The values of config.json that shape the network; the defaults are the published network.

    A patch has `patch_frames` frames of `num_mel_bins` bands; the next one starts `patch_hop`
    frames later. blocks: filters and stride of each separable convolution.
    """

    num_mel_bins: int = 64
    patch_frames: int = 96
    patch_hop: int = 48
    first_filters: int = 32
    blocks: list[list[int]] = field(default_factory=lambda: [list(b) for b in PUBLISHED_BLOCKS])
