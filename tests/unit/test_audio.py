"""Windows of real files in every container that a test can make sound in."""

import functools
import os
import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tagger.audio import decoders, hash_streams, plan_windows, read_windows
from tagger.audio.decoders import (
    FIRST_PYAV_WITHOUT_ERRORS_ARGUMENT,
    PYAV_MAJOR_VERSION,
    AvSource,
    open_av,
    open_soundfile,
)
from tagger.errors import AccessError, DecodeError, FailureKind
from tagger.tags import read_other_fields
from tests.builders import add_rich_tags, build_audio, truncate
from tests.marks import others_slow
from tests.robustness.mutate import with_ogg_checksums

RATE_HZ = 16_000
SUFFIXES = (
    ".mp3", ".mp2", ".aac", ".wav", ".wave", ".aiff", ".tta", ".dsf", ".flac", ".ogg", ".oga",
    ".opus", ".m4a", ".wma", ".wv",
)  # fmt: skip
NO_LENGTH = {".aac", ".mp2"}
CUT = [(suffix, count) for count in (1, 10) for suffix in SUFFIXES if suffix not in NO_LENGTH]
LOSSLESS = (".wav", ".aiff", ".tta", ".flac", ".wv")
SILENT_MUSEPACK = bytes.fromhex(
    "4d50434b53480e2bbe1f4f0885b108001b1b52470c010000000000000000454907a0011e0153"
    "4f08190000000041500c0fffffffffffffffe04150050fff5354060112d0534503"
)
"""Two seconds of silence by mpcenc."""


def ramp(seconds: float, rate_hz: int) -> NDArray[np.float32]:
    """Return a stereo tone (2, n) that grows louder by the second: its loudness tells the time."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    loudness = (np.floor(time_s) + 1) / (seconds + 1)
    return np.tile(loudness * np.sin(2 * np.pi * 1000 * time_s), (2, 1)).astype(np.float32)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_container_gives_windows_of_the_asked_length(tmp_path: Path, suffix: str) -> None:
    path = build_audio(tmp_path / f"a{suffix}", seconds=7)
    recording = read_windows(path, rate_hz=RATE_HZ, window_s=1.5, count=3)
    assert [w.shape for w in recording.windows] == [(24_000,)] * 3
    assert {w.dtype for w in recording.windows} == {np.dtype(np.float32)}
    assert recording.duration_s == pytest.approx(7, abs=0.2)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_window_holds_the_sound_of_its_place(tmp_path: Path, suffix: str) -> None:
    """The same samples come out of any lossless container, by whichever library it is read."""
    reference = build_audio(tmp_path / "a.wav", seconds=6)
    path = build_audio(tmp_path / f"b{suffix}", seconds=6)
    samples, rate_hz = soundfile.read(reference, dtype="float32")
    wanted = read_windows(path, rate_hz=rate_hz, window_s=1.0, count=2).windows
    for start_s, window in zip(plan_windows(6.0, 1.0, 2), wanted, strict=True):
        start = round(start_s * rate_hz)
        assert window == pytest.approx(samples[start : start + rate_hz].mean(axis=1), abs=1e-4)


@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".opus", ".m4a", ".wma"])
def test_a_window_of_a_lossy_file_stands_where_it_should(tmp_path: Path, suffix: str) -> None:
    path = build_audio(tmp_path / f"ramp{suffix}", seconds=40, sound=ramp)
    windows = read_windows(path, rate_hz=RATE_HZ, window_s=2.0, count=10).windows
    loudness = [float(np.sqrt(2 * np.mean(np.square(window)))) * 41 for window in windows]
    assert loudness == pytest.approx([4 * i + 2.5 for i in range(10)], abs=2.5)


def test_every_frame_of_a_packet_is_heard(tmp_path: Path) -> None:
    """Musepack puts 64 frames into a packet, and FFmpeg knows the time of the first one alone."""
    path = tmp_path / "a.mpc"
    path.write_bytes(SILENT_MUSEPACK)
    with open_av(path) as source:
        assert source.read(0.2, 1.0).size == source.rate_hz
    with pytest.raises(DecodeError, match="silent"):
        read_windows(path, rate_hz=RATE_HZ, window_s=1.0, count=1)


def test_frames_that_tell_no_time_begin_where_their_packet_does(tmp_path: Path) -> None:
    path = tmp_path / "a.wma"
    path.write_bytes(silent_wma_pro(packets=4))
    with open_av(path) as source:
        assert source.duration_s == pytest.approx(7.8)
        for start_s in (0.0, 3.0, 6.0):
            assert source.read(start_s, 1.0).size == source.rate_hz


def silent_wma_pro(*, packets: int) -> bytes:
    """Return a WMA Pro file of silence in packets of 41 frames, 1.95 s, as Microsoft made them."""
    block, length_ms = 8917, 1950
    frames = "0800000034801c00" + "0460026800118009a000460026800118009a00" * 10
    sound = bytes.fromhex(frames).ljust(block, b"\0")
    head = struct.Struct("<B2xBBIHBBIBII")
    content = b"".join(
        head.pack(130, 0, 93, n * length_ms, length_ms, 129, n, 0, 8, block, n * length_ms) + sound
        for n in range(packets)
    )
    codec = bytes.fromhex("1800030000000000000000000000e0000000")
    wave = struct.pack("<HHIIHHH", 0x162, 2, 44_100, 4800, block, 16, len(codec)) + codec
    length, size = packets * length_ms * 10_000, head.size + block
    file = struct.pack("<32xQQQQIIII", packets, length, length, 0, 2, size, size, 38_400)
    kinds = "409e69f84d5bcf11a8fd00805f5c442b0057fb20555bcf11a8fd00805f5c442b"
    stream = bytes.fromhex(kinds) + struct.pack("<8xI4xH4x", len(wave), 1) + wave
    objects = _asf("a1dcab8c47a9cf118ee400c00c205365", file)
    objects += _asf("9107dcb7b7a9cf118ee600c00c205365", stream)
    data = struct.pack("<16xQH", packets, 0x101) + content
    return _asf("3026b2758e66cf11a6d900aa0062ce6c", struct.pack("<IH", 2, 0x201) + objects) + _asf(
        "3626b2758e66cf11a6d900aa0062ce6c", data
    )


def _asf(guid: str, content: bytes) -> bytes:
    return bytes.fromhex(guid) + struct.pack("<Q", 24 + len(content)) + content


def test_a_few_bytes_that_claim_hours_of_sound_are_refused(tmp_path: Path) -> None:
    """The longest frame that Monkey's Audio makes is of seconds; decoded, this one is of 450 MB."""
    path = tmp_path / "a.ape"
    head = struct.pack("<4s4H7I", b"MAC ", 3960, 2000, 22, 2, RATE_HZ, 44, 0, 1, 111_770_304, 0, 1)
    silence = struct.pack("<4I", 0xB38D1113, 7, 0x10000, 0)
    path.write_bytes(head + bytes(44) + struct.pack("<I", 88) + silence)
    with pytest.raises(DecodeError, match="a frame of 111770304 samples"):
        read_windows(path, rate_hz=RATE_HZ, window_s=1.0, count=1)


@pytest.mark.parametrize("start_s", [0.0, 10.0, 25.0])
def test_a_stream_that_begins_midway_ends_the_sound(tmp_path: Path, start_s: float) -> None:
    """Where such a stream turns up, PyAV 18 asks for it in a list made before."""
    with open_av(make_ogg_with_late_stream(tmp_path)) as source:
        assert source.read(start_s, 60.0).size < 30.1 * source.rate_hz


def make_ogg_with_late_stream(folder: Path) -> Path:
    path = build_audio(folder / "a.opus", seconds=30)
    data = path.read_bytes()
    pages = [match.start() for match in re.finditer(b"OggS", data)]
    first, middle = bytearray(data[: pages[1]]), pages[len(pages) // 2]
    first[14:18] = b"else"  # the serial number
    path.write_bytes(with_ogg_checksums(data[:middle] + bytes(first) + data[middle:]))
    return path


@pytest.mark.skipif(
    PYAV_MAJOR_VERSION >= FIRST_PYAV_WITHOUT_ERRORS_ARGUMENT, reason="it leaves such a stream out"
)
def test_a_stream_that_begins_midway_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="begins in the middle"):
        hash_streams(make_ogg_with_late_stream(tmp_path))


@pytest.mark.parametrize("channels", [1, 7, 8, 9, 64])
def test_ffmpeg_hears_the_mean_of_any_number_of_channels(tmp_path: Path, channels: int) -> None:
    """From eight on, PyAV reads past the end of a frame's planes, and dies if it may choose."""
    path = tmp_path / "a.tta"
    noise = np.random.default_rng(0).normal(0, 0.1, (2 * RATE_HZ, channels)).astype(np.float32)
    soundfile.write(path, noise, RATE_HZ, format="WAV", subtype="FLOAT")
    (window,) = read_windows(path, rate_hz=RATE_HZ, window_s=1.0, count=1).windows
    assert window == pytest.approx(noise[RATE_HZ // 2 :][:RATE_HZ].mean(axis=1), abs=1e-6)


def test_the_channels_may_change_in_a_stream(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE_HZ) / RATE_HZ)
    parts = []
    for channels in (2, 1, 2):
        sound = np.repeat(tone[:, None], channels, axis=1)
        soundfile.write(tmp_path / "part.mp3", sound, RATE_HZ, format="MP3")
        parts.append((tmp_path / "part.mp3").read_bytes())
    path = tmp_path / "a.mp3"
    path.write_bytes(b"".join(parts))
    with open_av(path) as source:
        seconds = source.read(0.0, 12.0).reshape(12, -1)
    assert seconds.std(axis=1) == pytest.approx(np.full(12, tone.std()), abs=0.05)


def test_frames_before_a_window_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an MP3 a seek ends many frames before the window; all but the last few are left out."""
    path = tmp_path / "a.mp3"
    samples, rate_hz = soundfile.read(build_audio(tmp_path / "a.wav", seconds=90))
    soundfile.write(path, samples, rate_hz, format="MP3", bitrate_mode="VARIABLE")
    left_out = read_windows(path, rate_hz=rate_hz, window_s=2.0, count=7).windows
    monkeypatch.setattr(decoders, "MP3_PREROLL_BYTES", path.stat().st_size)
    decoded = read_windows(path, rate_hz=rate_hz, window_s=2.0, count=7).windows
    assert np.array_equal(left_out, decoded)
    monkeypatch.setattr(decoders, "MP3_PREROLL_BYTES", 1)
    damaged = read_windows(path, rate_hz=rate_hz, window_s=2.0, count=7).windows
    assert not np.array_equal(damaged, decoded)


def test_mp3_inside_wav_is_left_to_ffmpeg(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of such a file libsndfile takes the chunk behind for sound, and tells the terminal of it."""
    with av.open(build_audio(tmp_path / "a.mp3", seconds=3)) as container:
        sound = b"".join(bytes(packet) for packet in container.demux())
    mp3 = struct.pack("<HHIIHHHHIHHH", 85, 2, 44_100, 16_000, 1, 0, 12, 1, 2, 417, 1, 0)
    chunks = {b"fmt ": mp3, b"data": sound, b"id3 ": bytes(2000)}
    body = b"".join(struct.pack("<4sI", name, len(data)) + data for name, data in chunks.items())
    path = tmp_path / "a.wav"
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WAVE") + body)
    assert read_windows(path, rate_hz=RATE_HZ, window_s=3.0, count=1).windows
    assert not capfd.readouterr().err


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".flac"])
def test_libsndfile_is_not_shown_what_its_name_belies(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its MP3 reader would tell the terminal that the size is not the one of the header."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(build_audio(tmp_path / "a.mp3", seconds=3).read_bytes() * 2)
    assert read_windows(path, rate_hz=RATE_HZ, window_s=1.0, count=1).windows
    assert not capfd.readouterr().err


def test_soundfile_and_ffmpeg_agree(tmp_path: Path) -> None:
    path = build_audio(tmp_path / "a.flac", seconds=5)
    with open_soundfile(path) as one, open_av(path) as other:
        assert one.rate_hz == other.rate_hz
        assert one.duration_s == pytest.approx(other.duration_s, abs=1e-3)
        for start_s in (0.0, 1.234, 4.5):
            assert one.read(start_s, 0.4) == pytest.approx(other.read(start_s, 0.4), abs=1e-4)


def test_resampling_keeps_a_tone_and_drops_what_would_alias(tmp_path: Path) -> None:
    time_s = np.arange(4 * 48_000) / 48_000
    tones = 0.4 * np.sin(2 * np.pi * 1000 * time_s) + 0.4 * np.sin(2 * np.pi * 11_000 * time_s)
    soundfile.write(tmp_path / "a.wav", tones, 48_000)
    (window,) = read_windows(tmp_path / "a.wav", rate_hz=RATE_HZ, window_s=2.0, count=1).windows
    spectrum = np.abs(np.fft.rfft(window)) / (window.size / 2)
    assert spectrum[2000] == pytest.approx(0.4, abs=0.01)  # bins of half a hertz
    assert np.delete(spectrum, range(1990, 2011)).max() < 0.01


@pytest.mark.parametrize(
    ("duration_s", "count", "starts"),
    [
        (10.0, 1, [4.0]),
        (12.0, 3, [1.0, 5.0, 9.0]),
        (5.0, 10, [0.25, 2.75]),  # no more than fit
        (1.5, 4, [0.0]),
    ],
)
def test_windows_are_spread_evenly(duration_s: float, count: int, starts: list[float]) -> None:
    assert list(plan_windows(duration_s, 2.0, count)) == pytest.approx(starts)


def test_a_recording_shorter_than_a_window_is_heard_whole(tmp_path: Path) -> None:
    path = build_audio(tmp_path / "a.flac", seconds=1.25)
    (window,) = read_windows(path, rate_hz=RATE_HZ, window_s=30.0, count=5).windows
    assert window.shape == (20_000,)


def test_silent_stretches_are_passed_over(tmp_path: Path) -> None:
    time_s = np.arange(2 * RATE_HZ) / RATE_HZ
    tone = 0.1 * np.sin(2 * np.pi * 440 * time_s)
    soundfile.write(tmp_path / "a.wav", np.concatenate([tone, np.zeros(4 * RATE_HZ)]), RATE_HZ)
    recording = read_windows(tmp_path / "a.wav", rate_hz=RATE_HZ, window_s=1.0, count=6)
    assert len(recording.windows) == 2


@pytest.mark.parametrize(
    ("samples", "reason", "kind"),
    [
        (np.zeros(5 * RATE_HZ), "silent: nothing above -70 dBFS", FailureKind.SILENT),
        (np.full(RATE_HZ * 9 // 10, 0.5), "too short: 0.90 s of sound", FailureKind.TOO_SHORT),
    ],
)
def test_a_genre_is_never_guessed_from_nothing(
    tmp_path: Path, samples: NDArray[np.float64], reason: str, kind: FailureKind
) -> None:
    soundfile.write(tmp_path / "a.flac", samples, RATE_HZ)
    with pytest.raises(DecodeError, match=reason) as caught:
        read_windows(tmp_path / "a.flac", rate_hz=RATE_HZ, window_s=2.0, count=2)
    assert caught.value.kind is kind


@pytest.mark.parametrize("keep", others_slow([(0.95,), (0.6,)]))
@pytest.mark.parametrize(("suffix", "count"), others_slow(CUT, len(CUT) // 2))
def test_a_file_that_was_cut_off_is_no_recording(
    tmp_path: Path, suffix: str, keep: float, count: int
) -> None:
    path = truncate(build_audio(tmp_path / f"a{suffix}", seconds=40), keep=keep)
    with pytest.raises(DecodeError) as caught:
        read_windows(path, rate_hz=RATE_HZ, window_s=2.0, count=count)
    assert caught.value.kind in (FailureKind.TRUNCATED, FailureKind.CANNOT_DECODE)


def test_a_stream_of_unknown_size_is_not_taken_for_cut_off(tmp_path: Path) -> None:
    path = build_audio(tmp_path / "a.wav", seconds=3)
    data = bytearray(path.read_bytes())
    data[4:8] = b"\xff\xff\xff\xff"  # as ffmpeg writes into a pipe
    path.write_bytes(data)
    assert read_windows(path, rate_hz=RATE_HZ, window_s=1.0, count=1).windows


def test_what_is_no_recording_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "text.flac").write_text("la la la\n" * 100)
    for name, error, reason, kind in (
        ("empty.mp3", DecodeError, "the file is empty", FailureKind.TRUNCATED),
        ("text.flac", DecodeError, "not what its name says", FailureKind.WRONG_CONTENT),
        ("gone.flac", AccessError, "No such file", FailureKind.NO_ACCESS),
    ):
        with pytest.raises(error, match=reason) as caught:
            read_windows(tmp_path / name, rate_hz=RATE_HZ, window_s=1, count=1)
        assert caught.value.kind is kind


def test_a_playlist_with_the_name_of_a_song_opens_no_other_file(tmp_path: Path) -> None:
    song = build_audio(tmp_path / "song.mp3", seconds=3)
    playlist = tmp_path / "playlist.mp3"
    for text in (f"#EXTM3U\n#EXTINF:3\n{song}\n", f"ffconcat version 1.0\nfile {song}\n"):
        playlist.write_text(text)
        with pytest.raises(DecodeError):
            read_windows(playlist, rate_hz=RATE_HZ, window_s=1, count=1)


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".wav"])
@pytest.mark.parametrize("name", [b"caf\xe9", b"http:a", b"-i", b"%d", b"a\nb"])
def test_any_name_is_read(tmp_path: Path, name: bytes, suffix: str) -> None:
    path = tmp_path / (os.fsdecode(name) + suffix)
    build_audio(tmp_path / f"plain{suffix}", seconds=2).rename(path)
    assert read_windows(path, rate_hz=RATE_HZ, window_s=1, count=1).windows
    assert hash_streams(path)


def test_only_the_windows_are_read_of_a_long_recording(tmp_path: Path) -> None:
    """An hour is read as fast as a minute: the bytes taken from the file are counted, not time."""
    sizes = []
    for seconds in (60, 3600):
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, seconds * 8000), 8000)
        before = bytes_read()
        read_windows(path, rate_hz=8000, window_s=1.0, count=3)
        sizes.append(bytes_read() - before)
    assert sizes[1] < sizes[0] * 1.5


def bytes_read() -> int:
    """Return how many bytes this process took from files so far (Linux)."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def test_the_digest_tells_any_change_of_the_sound(tmp_path: Path) -> None:
    digests = {
        str(hash_streams(build_audio(tmp_path / f"{seed}{suffix}", seconds=1, seed=seed)))
        for seed in (1, 2)
        for suffix in SUFFIXES
    }
    assert len(digests) == 2 * len(SUFFIXES) - 4  # FLAC is the same in Ogg, WAV as WAVE
    one = build_audio(tmp_path / "x.mp3", seconds=1)
    data = bytearray(one.read_bytes())
    before = hash_streams(one)
    data[-100] ^= 1
    one.write_bytes(data)
    assert hash_streams(one) != before


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".ogg", ".m4a", ".wav"])
def test_the_first_packets_and_all_bytes_tell_as_much_as_all_packets(
    tmp_path: Path, suffix: str
) -> None:
    path = build_audio(tmp_path / f"x{suffix}", seconds=60)
    look = functools.partial(hash_streams, path, bytes_compared=True)
    packets, others = look(), read_other_fields(path)
    assert (packets == hash_streams(path)) == (suffix not in {".mp3", ".flac", ".ogg"})
    data = bytearray(path.read_bytes())
    data[len(data) * 9 // 10] ^= 1
    path.write_bytes(data)
    assert (look(), read_other_fields(path)) != (packets, others)


def test_chapters_and_pictures_are_told_like_streams(tmp_path: Path) -> None:
    book = build_audio(tmp_path / "book.m4b", seconds=1)
    plain, rich = hash_streams(book), hash_streams(add_rich_tags(book))
    assert "Chapter 1" in plain["chapters"]
    assert plain["chapters"] == rich["chapters"]
    assert set(rich) - set(plain) == {"video stream 2"}  # the picture
    book.write_bytes(book.read_bytes().replace(b"Chapter 1", b"Chapter 9"))
    assert hash_streams(book)["chapters"] != rich["chapters"]


def test_copy_protection_is_named(tmp_path: Path) -> None:
    path = build_audio(tmp_path / "a.m4a", seconds=2)
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"drms", 1))  # as iTunes did
    with pytest.raises(DecodeError, match="copy protection"):
        read_windows(path, rate_hz=RATE_HZ, window_s=1.0, count=1)


def test_a_file_that_vanished_is_no_bad_file(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="No such file"):
        hash_streams(tmp_path / "gone.mp3")
    with pytest.raises(AccessError, match="No such file"), open_av(tmp_path / "gone.mp3"):
        pass


def test_pictures_in_an_id3_tag_are_not_decoded(tmp_path: Path) -> None:
    path = build_audio(tmp_path / "a.mp3", seconds=7)
    bare = read_windows(path, rate_hz=RATE_HZ, window_s=1.5, count=3)
    add_rich_tags(path)
    with open_av(path) as source:
        assert isinstance(source, AvSource)
        assert not source.container.streams.video
    tagged = read_windows(path, rate_hz=RATE_HZ, window_s=1.5, count=3)
    assert np.array_equal(tagged.windows, bare.windows)
