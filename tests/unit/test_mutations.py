"""Files with wrong bytes: whatever is read of them, only our own errors come out."""

import random
from pathlib import Path

import pytest

from tagger.audio import read_windows, stream_digests
from tagger.errors import TrackError
from tagger.tags import other_fields, read_tags
from tests.builders import ENDINGS, audio_bytes

ROUNDS = 12
HEAD = 600
"""Most of what decides how a file is read stands in its first bytes."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return the data with a few bytes set, and sometimes a stretch cut out or its end cut off."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        limit = HEAD if chance.random() < 0.7 else len(result)
        result[chance.randrange(min(limit, len(result)))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
    if chance.random() < 0.2:
        start = chance.randrange(len(result))
        del result[start : start + chance.randint(1, 64)]
    if chance.random() < 0.2:
        del result[chance.randrange(len(result)) :]
    return bytes(result)


@pytest.mark.parametrize("ending", ENDINGS)
def test_only_our_errors_come_out_of_a_damaged_file(tmp_path: Path, ending: str) -> None:
    chance = random.Random(ending)
    path = tmp_path / f"song{ending}"
    refused = 0
    for round_number in range(ROUNDS):
        path.write_bytes(mutated(audio_bytes(ending, rich=round_number % 2 == 0), chance))
        for read in (read_tags, other_fields, stream_digests, listen):
            try:
                read(path)
            except TrackError:
                refused += 1
    assert refused  # else the damage was none


def listen(path: Path) -> object:
    return read_windows(path, rate_hz=16_000, window_s=0.2, count=2)
