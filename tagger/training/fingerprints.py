"""The same recording in two clips, told by its sound: in another encoding, or as another excerpt.

The fingerprints are those of J. Haitsma and T. Kalker, "A highly robust audio fingerprinting
system" (ISMIR 2002): 32 bits for each moment say between which of 33 bands the difference in
energy has grown since the moment before. Lossy coding, another sampling rate or another loudness
change few of them; another song has other bits, and so has another performance of the same one.

As in the paper, words that two clips have in common tell which pairs to compare, and where; the
share of differing bits in all that overlaps decides. Every figure below was measured on 546
recordings: of games and demos, of the web, and a hundred of GTZAN.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len, rfft
from scipy.signal import resample_poly

Fingerprint = NDArray[np.uint32]
Numbers = NDArray[np.int64]

BANDS = 33
LOWEST_HZ, HIGHEST_HZ = 300.0, 2000.0
FRAME_S = 0.37
"""Bands and frames of the paper."""
HOP_S = 0.0232
"""Twice that of the paper, which wants to know a song by three seconds; here are ten or more."""
MIN_RATE_HZ = 5000
"""Sound is brought down to the lowest rate that is not below this: 2,000 Hz is all that counts."""
MIN_RELATIVE_ENERGY = 1e-5
"""A moment 50 dB below the loudest one says nothing: a codec's own noise may be louder."""
FRAMES_PER_BLOCK = 256
"""How many frames are transformed at a time."""

MAX_BIT_ERROR_SHARE = 0.35
"""That of the paper. Of 149,000 pairs of different music none had less than 0.40, at any distance;
what went through MP3 at 32 kbit/s or Opus at 24 had 0.16 at most, sped up by 1 % a quarter."""
MIN_OVERLAP_S = 5.0
"""How long two clips must overlap, not counting quiet moments."""
MIN_COMMON_WORDS = 2
"""So many words must two clips have in common at one distance; Opus at 24 kbit/s left three."""
MAX_WORD_COUNT = 32
"""A word that more moments have than this (drones, loops) tells no recording from another."""
INDEX_PARTS = 16
"""The index is made in so many parts, one after the other, so that little of it is in memory."""


@dataclass(frozen=True, slots=True)
class RecordingPair:
    """Two clips of one recording, by their numbers: how much they share, and how alike it is.

    bit_errors: the share of bits that differ where they overlap, 0.5 for what is unrelated.
    """

    first: int
    second: int
    overlap_s: float
    bit_errors: float


def compute_fingerprint(samples: NDArray[np.float32], rate_hz: int) -> Fingerprint:
    """Return a word for every 23 ms of mono float32 samples of shape (n,), 0 where it is quiet.

    Fingerprints can be compared if the sound had one rate, of 8 kHz or more. What is shorter than
    a frame has no words.
    """
    factor = max(1, rate_hz // MIN_RATE_HZ)
    low = resample_poly(samples, 1, factor).astype(np.float32)
    rate = rate_hz / factor
    size, hop = round(FRAME_S * rate), round(HOP_S * rate)
    if low.size < size:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(low, size)[::hop]
    blocks = range(0, len(frames), FRAMES_PER_BLOCK)
    energy = np.concatenate(
        [_compute_energy(frames[at : at + FRAMES_PER_BLOCK], rate) for at in blocks]
    )
    grown = np.diff(np.diff(energy, axis=1), axis=0) < 0
    words = np.packbits(grown, axis=1).view(">u4").ravel().astype(np.uint32)
    loud = energy.sum(axis=1)
    return np.where(loud[1:] > MIN_RELATIVE_ENERGY * loud.max(), words, np.uint32(0))


def _compute_energy(frames: NDArray[np.float32], rate_hz: float) -> NDArray[np.float32]:
    """Return the energy in each band of frames of shape (frames, samples)."""
    size = next_fast_len(frames.shape[1], real=True)
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 1)
    bins = np.round(edges * size / rate_hz).astype(int)
    window = np.hanning(frames.shape[1]).astype(np.float32)
    power = np.abs(rfft(frames * window, size)[:, : bins[-1]]) ** 2
    energy: NDArray[np.float32] = np.add.reduceat(power, bins[:-1], axis=1)
    return energy


def find_same_recordings(fingerprints: Sequence[Fingerprint]) -> list[RecordingPair]:
    """Return the pairs of clips that share 5 s or more of a recording, in order of their numbers.

    10,000 clips of 30 s take 4 s and 120 MB. More copies than `FULL` of one clip find no other.
    """
    best: dict[tuple[int, int], RecordingPair] = {}
    for first, second, distance in _find_candidates(fingerprints):
        pair = _compare_pair(fingerprints, first, second, distance)
        known = best.get((first, second))
        if pair and (known is None or pair.bit_errors < known.bit_errors):
            best[first, second] = pair
    return [best[key] for key in sorted(best)]


def find_leaks(pairs: Sequence[RecordingPair], halves: Sequence[object]) -> list[RecordingPair]:
    """Return the pairs whose clips lie in different halves; `halves` names that of each clip."""
    return [pair for pair in pairs if halves[pair.first] != halves[pair.second]]


def _find_candidates(fingerprints: Sequence[Fingerprint]) -> Iterator[tuple[int, int, int]]:
    """Yield two clips, and how many moments the second one starts after the first."""
    longest = max(map(len, fingerprints), default=0)
    sizes = np.array([len(each) for each in fingerprints], np.int64)
    starts = np.cumsum(sizes) - sizes
    words = np.concatenate([np.zeros(0, np.uint32), *fingerprints])
    keys = [
        _make_keys(*places, starts, 2 * longest)
        for part in range(INDEX_PARTS)
        for places in _find_collisions(words, part)
    ]
    found, hits = np.unique(np.concatenate(keys), return_counts=True)
    for key in found[hits >= MIN_COMMON_WORDS].tolist():
        clips, distance = divmod(key, 2 * longest)
        first, second = divmod(clips, len(fingerprints))
        yield first, second, distance - longest


def _find_collisions(words: Fingerprint, part: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield pairs of places with the same word, one part of the words at a time."""
    places = np.flatnonzero((words % INDEX_PARTS == part) & (words != 0))
    places = places[words[places] != words[places - 1]]  # a held chord counts once
    places = places[np.argsort(words[places], kind="stable")]
    ordered = words[places]
    full = ordered[MAX_WORD_COUNT:][ordered[MAX_WORD_COUNT:] == ordered[:-MAX_WORD_COUNT]]
    rare = ~np.isin(ordered, full)
    places, ordered = places[rare], ordered[rare]
    for lag in range(1, MAX_WORD_COUNT):
        same = np.flatnonzero(ordered[lag:] == ordered[:-lag])
        yield places[same], places[same + lag]


def _make_keys(one: Numbers, other: Numbers, starts: Numbers, span: int) -> Numbers:
    """Return clip, other clip and distance as one number, for places that lie in two clips."""
    first = np.searchsorted(starts, one, "right") - 1
    second = np.searchsorted(starts, other, "right") - 1
    distance = (one - starts[first]) - (other - starts[second]) + span // 2
    keys: Numbers = ((first * len(starts) + second) * span + distance)[first != second]
    return keys


def _compare_pair(
    fingerprints: Sequence[Fingerprint], first: int, second: int, distance: int
) -> RecordingPair | None:
    """Return the pair if what overlaps is alike for long enough."""
    one, other = fingerprints[first], fingerprints[second]
    one, other = one[max(0, distance) :], other[max(0, -distance) :]
    length = min(len(one), len(other))
    one, other = one[:length], other[:length]
    heard = (one != 0) & (other != 0)
    differing = (one ^ other)[heard]
    overlap_s = len(differing) * HOP_S
    if overlap_s < MIN_OVERLAP_S:
        return None
    errors = float(np.unpackbits(differing.view(np.uint8)).mean())
    return RecordingPair(first, second, overlap_s, errors) if errors < MAX_BIT_ERROR_SHARE else None
