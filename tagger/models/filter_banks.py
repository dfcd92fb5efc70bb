"""Triangular filters of mel bands, to the bit those of `transformers.audio_utils.mel_filter_bank`.

Slaney's are from his "Auditory Toolbox", version 2 (Interval Research, technical report 1998-010).
HTK's are from Young et al., "The HTK Book", the section on filter bank analysis. A copy, because
that function imports all of transformers, which takes longer than a short scan.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SLANEY_LOG_START_HZ, SLANEY_LOG_START_MEL = 1000.0, 15.0
"""From here on Slaney's scale is logarithmic; below it is linear."""
SLANEY_LOG_RATIO, SLANEY_LOG_MELS = 6.4, 27.0
"""Frequencies with this ratio are this many mels apart."""

HTK_FACTOR, HTK_CORNER_HZ = 2595.0, 700.0


def make_slaney_filters(bins: int, bands: int, rate_hz: int) -> Floats:
    """Return Slaney's filters (bins, bands) from 0 Hz to half the rate, each of the same area.

    bins: the frequencies of a spectrum.
    """
    half_hz = rate_hz / 2
    log_mels = np.log(half_hz / SLANEY_LOG_START_HZ) * (SLANEY_LOG_MELS / np.log(SLANEY_LOG_RATIO))
    mels = np.linspace(0.0, SLANEY_LOG_START_MEL + log_mels, bands + 2)
    edges_hz = 200.0 * mels / 3.0
    is_log = mels >= SLANEY_LOG_START_MEL
    exponents = (np.log(SLANEY_LOG_RATIO) / SLANEY_LOG_MELS) * (mels[is_log] - SLANEY_LOG_START_MEL)
    edges_hz[is_log] = SLANEY_LOG_START_HZ * np.exp(exponents)
    filters = _make_triangles(np.linspace(0, rate_hz // 2, bins), edges_hz)
    return filters * (2.0 / (edges_hz[2:] - edges_hz[:-2]))


def make_htk_filters(
    bins: int, bands: int, rate_hz: int, lowest_hz: float, highest_hz: float
) -> Floats:
    """Return HTK's filters (bins, bands), which are triangles on the mel scale, each of height 1.

    bins: the frequencies of a spectrum.
    """
    bins_hz = rate_hz / ((bins - 1) * 2) * np.arange(bins, dtype=np.float64)
    edges = np.linspace(_convert_to_htk(lowest_hz), _convert_to_htk(highest_hz), bands + 2)
    return _make_triangles(_convert_to_htk(bins_hz), edges)


def _convert_to_htk(hz: float | Floats) -> Floats:
    return np.asarray(HTK_FACTOR * np.log10(1.0 + (hz / HTK_CORNER_HZ)))


def _make_triangles(bins: Floats, edges: Floats) -> Floats:
    """Return the height of each triangle at each bin, (bins, bands).

    edges: each triangle begins at one, has its top at the next and ends at the one after.
    """
    widths = np.diff(edges)
    slopes = edges - bins[:, np.newaxis]
    falling, rising = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    return np.maximum(0.0, np.minimum(falling, rising))
