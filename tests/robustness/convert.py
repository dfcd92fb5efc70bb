"""Make a corpus: cut pieces of tracks and encode each in every way that FFmpeg knows.

python tests/robustness/convert.py OUTPUT TRACK...
"""

import subprocess
import sys
from pathlib import Path

SECONDS = 12
TEXTS = (
    "title=Träume ☃", "artist=One; Other", "album=Album", "comment=a comment", "lyrics=la\nla",
    "track=3/9", "date=1999-12-31", "composer=Nobody", "replaygain_track_gain=-3.20 dB",
)  # fmt: skip
CHAPTERS = ";FFMETADATA1\n" + "".join(
    f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={5000 * n}\nEND={5000 * n + 5000}\ntitle=Chapter {n}\n"
    for n in range(2)
)
COVER = ("-map", "2:v", "-c:v", "mjpeg", "-disposition:v", "attached_pic")
PIECES = ("-frag_duration", "2000000", "-f", "mp4")
CHAPTERED = ("-map_chapters", "1")
WAYS = {
    "v23.mp3": ("-c:a", "libmp3lame", "-id3v2_version", "3", "-write_id3v1", "1", *COVER),
    "v24.mp3": ("-c:a", "libmp3lame", "-q:a", "4", "-write_apetag", "1", *CHAPTERED),
    "bare.mp3": ("-c:a", "libmp3lame", "-id3v2_version", "0", "-map_metadata", "-1"),
    "flac": ("-c:a", "flac", *COVER),
    "bare.flac": ("-c:a", "flac", "-map_metadata", "-1", "-bitexact"),
    "ogg": ("-c:a", "libvorbis", *CHAPTERED),
    "opus": ("-c:a", "libopus", *CHAPTERED),
    "spx": ("-c:a", "libspeex", "-ar", "32000"),
    "oga": ("-c:a", "flac", "-f", "oga"),
    "m4a": ("-c:a", "aac", *COVER),
    "front.m4a": ("-c:a", "aac", "-movflags", "+faststart", "-metadata", "genre=Rock", *CHAPTERED),
    "alac.m4a": ("-c:a", "alac", "-f", "ipod"),
    "m4b": ("-c:a", "aac", "-f", "ipod", *CHAPTERED),
    "mp4": ("-c:a", "aac", "-map_metadata", "-1"),
    "fragments.mp4": ("-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", *PIECES),
    "dash.m4a": ("-c:a", "aac", "-movflags", "+dash+skip_trailer+default_base_moof", *PIECES),
    "mdta.mp4": ("-c:a", "aac", "-movflags", "use_metadata_tags"),
    "wma": ("-c:a", "wmav2", *COVER),
    "chapters.wma": ("-c:a", "wmav2", *CHAPTERED),
    "wv": ("-c:a", "wavpack"),
    "tta": ("-c:a", "tta"),
    "wav": ("-c:a", "pcm_s16le"),
    "bext.wav": ("-c:a", "pcm_s24le", "-write_bext", "1", "-metadata", "genre=Rock"),
    "aiff": ("-c:a", "pcm_s16be", "-write_id3v2", "1"),
    "aif": ("-c:a", "pcm_s16be"),
    "aifc": ("-c:a", "pcm_alaw", "-f", "aiff"),
}  # fmt: skip


def convert(track: Path, folder: Path) -> None:
    chapters, cover = folder / "chapters.txt", folder / "cover.png"
    texts = [word for text in TEXTS for word in ("-metadata", text)]
    start = ("ffmpeg", "-v", "error", "-y", "-t", str(SECONDS), "-i", str(track))
    for ending, how in WAYS.items():
        target = folder / f"{track.stem}.{ending}"
        command = [
            *start,
            "-i",
            str(chapters),
            "-i",
            str(cover),
            "-map",
            "0:a",
            "-map_chapters",
            "-1",
        ]
        done = subprocess.run([*command, *texts, *how, str(target)], check=False)
        if done.returncode:
            target.unlink(missing_ok=True)


def main() -> None:
    folder, *tracks = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chapters.txt").write_text(CHAPTERS)
    source = ("-f", "lavfi", "-i", "testsrc=s=300x300:d=1", "-frames:v", "1")
    subprocess.run(["ffmpeg", "-v", "error", "-y", *source, folder / "cover.png"], check=True)
    for track in tracks:
        convert(track, folder)


if __name__ == "__main__":
    main()
