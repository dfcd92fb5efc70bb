"""What a musicnn checkpoint is made of: towers, their tags, sizes of the layers."""

from dataclasses import dataclass, field

MSD_TAGS = """
    rock, pop, alternative, indie, electronic, female vocalists, dance, 00s, alternative rock,
    jazz, beautiful, metal, chillout, male vocalists, classic rock, soul, indie rock, Mellow,
    electronica, 80s, folk, 90s, chill, instrumental, punk, oldies, blues, hard rock, ambient,
    acoustic, experimental, female vocalist, guitar, Hip-Hop, 70s, party, country, easy listening,
    sexy, catchy, funk, electro, heavy metal, Progressive rock, 60s, rnb, indie pop, sad, House,
    happy
"""
MTT_TAGS = """
    guitar, classical, slow, techno, strings, drums, electronic, rock, fast, piano, ambient, beat,
    violin, vocal, synth, female, indian, opera, male, singing, vocals, no vocals, harpsichord,
    loud, quiet, flute, woman, male vocal, no vocal, pop, soft, sitar, solo, man, classic, choir,
    voice, new age, dance, male voice, female vocal, beats, harp, cello, no voice, weird, country,
    metal, female voice, choral
"""


def get_published_towers() -> dict[str, list[str]]:
    """Return the tags of the two published networks, in the order of their output layers."""
    texts = {"msd": MSD_TAGS, "mtt": MTT_TAGS}
    return {name: " ".join(text.split()).split(", ") for name, text in texts.items()}


@dataclass(kw_only=True)
class MusicnnArchitecture:
    """The values of config.json that shape the network; the defaults are the published towers.

    towers: name of each network -> the tags of its output layer. A patch has `patch_frames` frames
    of `num_mel_bins` bands, as `MusicnnFeatures` makes them.
    """

    towers: dict[str, list[str]] = field(default_factory=get_published_towers)
    num_mel_bins: int = 96
    patch_frames: int = 187
    timbral_bands: list[int] = field(default_factory=lambda: [38, 67])
    timbral_frames: int = 7
    timbral_filters: int = 204
    temporal_frames: list[int] = field(default_factory=lambda: [128, 64, 32])
    temporal_filters: int = 51
    midend_layers: int = 3
    midend_frames: int = 7
    midend_filters: int = 64
    embedding_size: int = 200
    batch_norm_eps: float = 1e-3
    dropout: float = 0.5

    @property
    def tags(self) -> list[str]:
        """All tags in the order of the model's tag logits: MSD's 50, then MTT's 50."""
        return [tag for tags in self.towers.values() for tag in tags]
