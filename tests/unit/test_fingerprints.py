"""Fingerprints find the same recording in other encodings and excerpts, and no other music."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tagger.audio import read_windows
from tagger.training.fingerprints import (
    Fingerprint,
    RecordingPair,
    compute_fingerprint,
    find_leaks,
    find_same_recordings,
)
from tests.builders import Sound, build_audio

RATE_HZ = 16_000
TUNING_HZ = 220.0
SCALE = (0, 2, 4, 5, 7, 9, 11, 12, 14, 16)

Samples = NDArray[np.float32]


def tune(seed: int, *, start_s: float = 0.0, voices: int = 3) -> Sound:
    """Return a sound of a few voices that play notes of one scale at random, in one tempo."""

    def play(seconds: float, rate_hz: int) -> Samples:
        chance = np.random.default_rng(seed)
        time = start_s + np.arange(round(seconds * rate_hz)) / rate_hz
        mono = np.zeros(time.size)
        for _ in range(voices):
            notes = chance.choice(SCALE, 400) + 12 * chance.integers(0, 2)
            beat = (time * 5).astype(int)
            swell = np.exp(-3 * (time * 5 % 1)) * np.minimum(1, (time * 5 % 1) * 20)
            phase = 2 * np.pi * TUNING_HZ * 2 ** (notes[beat] / 12) * time
            mono += swell * sum(np.sin(k * phase) / k for k in range(1, 5))
        stereo: Samples = np.tile(mono * 0.2 / voices, (2, 1)).astype(np.float32)
        return stereo

    return play


@cache
def render(seed: int, start_s: float = 0.0, seconds: float = 20.0) -> Samples:
    mono: Samples = tune(seed, start_s=start_s)(seconds, RATE_HZ)[0]
    return mono


def fingerprint(samples: NDArray[np.floating]) -> Fingerprint:
    return compute_fingerprint(samples.astype(np.float32), RATE_HZ)


def find_pairs(*sounds: NDArray[np.floating]) -> list[tuple[int, int]]:
    pairs = find_same_recordings([fingerprint(sound) for sound in sounds])
    return [(pair.first, pair.second) for pair in pairs]


@pytest.mark.parametrize(
    "ending",
    [
        ".mp3",
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (".ogg", ".opus", ".m4a", ".wma", ".wv")
        ),
    ],
)
def test_another_encoding_is_the_same_recording(tmp_path: Path, ending: str) -> None:
    sounds = []
    for number, name in enumerate(["a.flac", f"a{ending}", f"b{ending}"]):
        path = build_audio(tmp_path / name, seconds=20, sound=tune(number // 2))
        recording = read_windows(path, rate_hz=RATE_HZ, window_s=30, count=1)
        sounds.append(recording.windows[0])
    assert find_pairs(*sounds) == [(0, 1)]


def test_an_excerpt_that_overlaps_by_ten_seconds() -> None:
    words = [
        fingerprint(render(seed, start)) for seed, start in ((1, 0), (2, 0), (1, 10.37), (3, 0))
    ]
    (pair,) = find_same_recordings(words)
    assert (pair.first, pair.second) == (0, 2)
    assert pair.overlap_s == pytest.approx(9.6, abs=0.5)
    assert pair.bit_errors < 0.2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda sound: sound * 0.03, id="30 dB softer"),
        pytest.param(lambda sound: np.tanh(sound * 8), id="distorted"),
        pytest.param(lambda sound: sound + make_noise(0.02), id="noise"),
        pytest.param(lambda sound: sound[5000:], id="cut"),
        pytest.param(lambda sound: np.concatenate([np.zeros(70_000), sound]), id="late"),
    ],
)
def test_a_changed_recording_is_found(
    change: Callable[[Samples], Samples],
) -> None:
    assert find_pairs(render(1), render(2), change(render(1))) == [(0, 2)]


def make_noise(level: float, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).normal(0, level, 20 * RATE_HZ).astype(np.float32)


def test_quiet_moments_do_not_count() -> None:
    sounds = [
        np.concatenate([render(1)[: 8 * RATE_HZ], make_noise(1e-5, seed)]) for seed in range(2)
    ]
    assert find_pairs(*sounds) == [(0, 1)]


@pytest.mark.slow
def test_other_music_in_the_same_key_and_tempo_is_not_found() -> None:
    assert find_pairs(*(render(seed) for seed in range(30))) == []


def make_loop(seed: int, beats: int) -> Samples:
    """Return the first `beats` beats of a tune, repeated."""
    return np.resize(render(seed, 0.0, beats / 5), 20 * RATE_HZ)


def make_beat() -> Samples:
    """Return the same drum for several songs."""
    time = np.arange(20 * RATE_HZ) / RATE_HZ
    return (np.exp(-12 * (time * 2.5 % 1)) * make_noise(0.03, seed=7)).astype(np.float32)


def make_chord(*ratios: float) -> Samples:
    time = np.arange(20 * RATE_HZ) / RATE_HZ
    tones = [np.sin(2 * np.pi * TUNING_HZ * ratio * time) for ratio in ratios]
    samples: Samples = (np.sum(tones, axis=0) * 0.1).astype(np.float32)
    return samples


def test_loops_drones_and_silence_are_not_found() -> None:
    loops = [make_loop(seed, beats) for seed in range(6) for beats in (4, 8, 16)]
    assert [pair for pair in find_pairs(*loops) if pair[0] // 3 != pair[1] // 3] == []
    assert find_pairs(*(render(seed) + make_beat() for seed in range(10))) == []
    drones = [
        make_chord(1.0),
        make_chord(1.0, 1.5),
        make_chord(1.0, 1.25, 1.5),
        make_chord(2.0),
        make_chord(1.0) + make_noise(0.001),
    ]
    assert find_pairs(*drones) == []
    assert (
        find_pairs(
            np.zeros(20 * RATE_HZ), np.zeros(20 * RATE_HZ), make_noise(1e-4), make_noise(1e-4, 1)
        )
        == []
    )


def test_short_sounds_are_not_found() -> None:
    assert find_pairs() == []
    assert find_pairs(render(1)[:100], render(1)[:100], np.zeros(0)) == []
    assert find_pairs(render(1)[: 4 * RATE_HZ], render(1)) == []


def test_a_leak_is_a_recording_in_two_parts() -> None:
    pairs = [
        RecordingPair(0, 1, 20.0, 0.1),
        RecordingPair(1, 2, 20.0, 0.1),
        RecordingPair(0, 3, 20.0, 0.1),
    ]
    assert find_leaks(pairs, ["train", "train", "test", "train"]) == [pairs[1]]
