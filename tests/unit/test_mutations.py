"""Files with wrong bytes: only our own errors come out, and what is written is right or refused.

The same damage as in tests/robustness/fuzz.py, to a few small files and always the same.
"""

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.builders import EACH_ENDING, ENDINGS, add_rich_tags, audio_bytes, build_audio
from tests.robustness.calls import CALLS, judge
from tests.robustness.mutate import mutate

ROUNDS = 25
REFUSALS = ("refused", "address space")
"""A file may claim sizes for which FFmpeg gets no memory. It is refused then."""
HEARD_S = 1.2
"""Long enough for a genre, so that the sound is decoded."""


@pytest.mark.parametrize("ending", EACH_ENDING)
def test_a_damaged_file_is_read_and_rewritten_or_refused(tmp_path: Path, ending: str) -> None:
    chance = Random(ending)
    whole = add_rich_tags(build_audio(tmp_path / f"whole{ending}", seconds=HEARD_S)).read_bytes()
    path = tmp_path / "damaged" / f"song{ending}"
    path.parent.mkdir()
    kinds: Counter[str] = Counter()
    for _ in range(ROUNDS):
        data = mutate(whole, audio_bytes(chance.choice(ENDINGS), rich=True), chance)
        for call in CALLS:
            path.write_bytes(data)
            verdict = judge(path, call)
            assert verdict.kind in ("", *REFUSALS), verdict
            kinds[verdict.kind] += 1
    assert kinds[""]
    assert any(kinds[kind] for kind in REFUSALS)  # else the damage was none


def test_empty_files_can_be_damaged_too() -> None:
    for number in range(200):
        mutate(b"", b"", Random(number))
