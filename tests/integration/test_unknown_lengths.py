"""Sound whose length, rate or end the file does not tell: heard and written all the same."""

import errno
from functools import partial
from pathlib import Path
from struct import pack

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tagger.audio import hash_streams, read_duration_s, read_windows
from tagger.errors import AccessError, DecodeError, FailureKind
from tagger.tags import read_other_fields, read_tags
from tests.builders import add_genre, build_audio, music
from tests.front_door import ANY, Command, Scan, run_without_torch

RATE_HZ = 16_000
PIPED = [
    ".flac",
    ".wv",
    *(
        pytest.param(each, marks=pytest.mark.slow)
        for each in (".mp3", ".wav", ".wma", ".opus", ".tta")
    ),
]


def noise(
    seconds: float, rate_hz: int, *, loud_from_s: float, loud_to_s: float
) -> NDArray[np.float32]:
    """Return stereo noise (2, n) that is next to silent but between two times."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    loud = np.where((time_s >= loud_from_s) & (time_s < loud_to_s), 0.3, 1e-3)
    return (np.random.default_rng(0).normal(0, 1, (2, time_s.size)) * loud).astype(np.float32)


def steps(seconds: float, rate_hz: int) -> NDArray[np.float32]:
    """Return a stereo tone (2, n) whose loudness tells the second, with noise that costs bits."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    loudness = (np.floor(time_s) + 1) / (seconds + 1)
    tone = loudness * np.sin(2 * np.pi * 1000 * time_s)
    return np.tile(tone, (2, 1)).astype(np.float32)


@pytest.mark.parametrize("loud", [pytest.param((0.0, 2.0), marks=pytest.mark.slow), (30.0, 40.0)])
def test_a_variable_bit_rate_without_its_header_has_its_true_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], loud: tuple[float, float]
) -> None:
    """FFmpeg divides the size by the bit rate of the first frames, and is wrong by any factor."""
    sound = partial(noise, loud_from_s=loud[0], loud_to_s=loud[1])
    path = build_audio(tmp_path / "a.mp3", seconds=40, codec="vbr", sound=sound, piped=True)
    assert b"Xing" not in path.read_bytes()[:4000]
    scan = Scan(capsys, path, *ANY)
    assert scan.actions == {"written": 1}
    assert float(scan.rows[0]["duration_s"]) == pytest.approx(40, abs=0.1)


def test_windows_of_a_variable_bit_rate_stand_where_they_should(tmp_path: Path) -> None:
    path = build_audio(tmp_path / "a.mp3", seconds=40, codec="vbr", sound=steps, piped=True)
    windows = read_windows(path, rate_hz=RATE_HZ, window_s=2.0, count=10).windows
    loudness = [float(np.sqrt(2 * np.mean(np.square(window)))) * 41 for window in windows]
    assert loudness == pytest.approx([4 * i + 2.5 for i in range(10)], abs=1.2)


def test_a_length_that_the_file_declares_is_not_counted(tmp_path: Path) -> None:
    """The tags of half a megabyte behind the sound would be read with it."""
    path = build_audio(tmp_path / "a.mp3", seconds=4)
    with path.open("ab") as file:
        file.write(bytes(500_000))
    assert read_duration_s(path) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("suffix", PIPED)
def test_what_a_pipe_wrote_is_heard_written_and_undone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    path = build_audio(tmp_path / f"a{suffix}", seconds=6, piped=True)
    sound, fields = hash_streams(path), read_other_fields(path)
    scan = Scan(capsys, path, *ANY)
    assert scan.actions == {"written": 1}, scan.rows
    assert float(scan.rows[0]["duration_s"]) == pytest.approx(6, abs=0.2)
    assert read_tags(path).genres == (scan.rows[0]["genre"],)
    assert (hash_streams(path), read_other_fields(path)) == (sound, fields)
    assert Command(capsys, "undo").code == 0
    assert not read_tags(path).genres
    assert (hash_streams(path), read_other_fields(path)) == (sound, fields)


@pytest.mark.parametrize(
    "sizes", [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000), (36, 0)]
)
def test_a_wav_that_was_never_finished_is_heard_written_and_undone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sizes: tuple[int, int]
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, music(4, RATE_HZ, frequency_hz=220, seed=0).T, RATE_HZ, "PCM_16")
    whole = path.read_bytes()
    path.write_bytes(
        whole[:4] + pack("<I", sizes[0]) + whole[8:40] + pack("<I", sizes[1]) + whole[44:]
    )
    sound = hash_streams(path)
    scan = Scan(capsys, path, *ANY)
    assert scan.actions == {"written": 1}, scan.rows
    assert float(scan.rows[0]["duration_s"]) == 4
    assert whole[40:] in path.read_bytes()  # with the true size
    assert hash_streams(path) == sound
    assert Command(capsys, "undo").code == 0
    assert path.read_bytes() == whole


def test_a_tag_behind_a_sound_of_no_bytes_is_a_tag(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0), RATE_HZ, "PCM_16")
    add_genre(path, "Polka")
    assert read_tags(path).genres == ("Polka",)


def test_a_rate_and_channels_that_change_in_a_window_are_heard(tmp_path: Path) -> None:
    """As in a file that somebody made of two. libsndfile writes the part with one channel."""
    path, other = build_audio(tmp_path / "a.mp3", seconds=4, piped=True), tmp_path / "b.mp3"
    mono = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(4 * 22_050) / 22_050)
    soundfile.write(other, mono, 22_050, format="MP3")
    path.write_bytes(path.read_bytes() + other.read_bytes())
    (window,) = read_windows(path, rate_hz=RATE_HZ, window_s=8.0, count=1).windows
    spectrum = np.abs(np.fft.rfft(window[5 * RATE_HZ : 7 * RATE_HZ])) / RATE_HZ
    assert spectrum.argmax() == 2000  # bins of half a hertz
    assert spectrum[2000] == pytest.approx(0.5, abs=0.02)


def test_a_flac_that_was_cut_off_after_a_few_frames_is_no_refusal_of_the_system(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FFmpeg gives such an error the number that the system gives to a refusal."""
    path = build_audio(tmp_path / "a.flac", seconds=8)
    whole = path.read_bytes()
    sound = whole.index(b"\xff\xf8", 8000)
    for kept in (sound, sound + 9000, sound + 100):
        path.write_bytes(whole[:kept])
        with pytest.raises(DecodeError) as caught:
            read_windows(path, rate_hz=RATE_HZ, window_s=1.0, count=3)
        assert caught.value.kind is FailureKind.TRUNCATED
    (row,) = Scan(capsys, path, *ANY).rows
    assert (row["action"], row["kind"]) == ("failed", "truncated")
    assert "permitted" not in row["error"]
    again = run_without_torch("scan", path, *ANY)  # it is not tried again
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("number", [errno.EPERM, errno.EIO, errno.ENOENT, errno.EACCES])
def test_only_the_system_itself_refuses(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg uses the system's numbers for what it dislikes in a file that anyone can read."""
    path = build_audio(tmp_path / "a.mp3", seconds=2)

    def fail(*_args: object, **_options: object) -> None:
        av.error.err_check(-number)

    monkeypatch.setattr(av, "open", fail)
    for read in (partial(read_windows, rate_hz=RATE_HZ, window_s=1.0, count=1), hash_streams):
        with pytest.raises(DecodeError, match=f"gives up with error {number}"):
            read(path)
    path.unlink()
    with pytest.raises(AccessError, match="cannot read: No such file"):
        hash_streams(path)
