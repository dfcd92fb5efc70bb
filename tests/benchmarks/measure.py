"""What the benchmarks share: music to measure with, and the time and memory of commands."""

import ctypes
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event, Thread

import psutil

ROOT = Path(__file__).parents[2]
CORES = len(os.sched_getaffinity(0))
MIB = 1 << 20
MEMORY_INTERVAL_S = 0.05
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

SOUND_SUFFIXES = {".mp3", ".ogg", ".flac", ".m4a", ".opus", ".wav"}
ENCODERS = {
    ".mp3": ("-b:a", "192k"),
    ".m4a": ("-c:a", "aac", "-b:a", "160k"),
    ".opus": ("-b:a", "128k"),
}
SMALL_SUFFIXES = (".mp3", ".ogg", ".flac", ".m4a")
SMALL_S = 2.0


def make_tracks(
    folder: Path, count: int, seconds: float, *, formats: str, music: Path | None = None
) -> None:
    """Fill a folder with tracks of one length, each of different music, format after format.

    The music is that of the real tracks in `music`, which ffmpeg joins and cuts, or else synthetic.
    """
    folder.mkdir(parents=True)
    suffixes = [f".{name}" for name in formats.split(",")]
    songs = find_songs(music) if music else []
    for number in range(count):
        path = folder / f"{number:04d}{suffixes[number % len(suffixes)]}"
        if songs:
            first = number % len(songs)
            join_songs(songs[first:] + songs[:first], path, seconds)
        else:
            make_synthetic(path, seconds, number)


def make_synthetic(path: Path, seconds: float, number: int) -> None:
    from tests.builders import build_audio, music

    sound = partial(music, frequency_hz=80 + 7 * (number % 35), seed=number)
    build_audio(path, seconds=seconds, sound=sound)


def find_songs(folder: Path) -> list[Path]:
    """Return the larger half of the audio files, which are songs."""
    files = sorted(each for each in folder.rglob("*") if each.suffix.lower() in SOUND_SUFFIXES)
    if not files:
        raise SystemExit(f"{folder} has no music")
    size = median(path.stat().st_size for path in files)
    return [path for path in files if path.stat().st_size >= size]


def join_songs(songs: Sequence[Path], target: Path, seconds: float) -> None:
    """Join these songs, again and again if they are short, and write the first `seconds`."""
    inputs: list[str] = []
    joined_s = 0.0
    while joined_s < seconds:
        song = songs[len(inputs) // 2 % len(songs)]
        inputs += ["-i", str(song)]
        joined_s += probe_duration_s(song)
    numbers = range(len(inputs) // 2)
    common_format = "aresample=44100,aformat=channel_layouts=stereo"
    chain = "".join(f"[{i}:a:0]{common_format}[a{i}];" for i in numbers)
    chain += "".join(f"[a{i}]" for i in numbers) + f"concat=n={len(numbers)}:v=0:a=1[out]"
    ffmpeg = ["ffmpeg", "-v", "error", "-y", *inputs, "-filter_complex", chain, "-map", "[out]"]
    encoder = ENCODERS.get(target.suffix, ())
    subprocess.run([*ffmpeg, "-t", str(seconds), *encoder, str(target)], check=True)


def probe_duration_s(path: Path) -> float:
    probe = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]
    return float(subprocess.run([*probe, path], check=True, capture_output=True, text=True).stdout)


def make_small_files(
    folder: Path, count: int, *, with_genre: bool, seconds: float = SMALL_S
) -> None:
    """Fill a folder with short files in four formats, ten to an album, 200 to an artist."""
    from tests.builders import add_genre, build_audio

    folder.mkdir(parents=True)
    originals = []
    for number, suffix in enumerate(SMALL_SUFFIXES):
        path = build_audio(folder.with_suffix(suffix), seconds=seconds, seed=number)
        originals.append((add_genre(path, "rock") if with_genre else path).read_bytes())
    for number in range(count):
        album = folder / f"artist {number // 200:04}" / f"album {number // 10 % 20:02}"
        if number % 10 == 0:
            album.mkdir(parents=True)
        kind = number // 10 % len(SMALL_SUFFIXES)
        (album / f"{number % 10:02} a song{SMALL_SUFFIXES[kind]}").write_bytes(originals[kind])


def walk(folder: Path) -> None:
    """Stat all files in the barest way."""
    for place, _, names in os.walk(folder):
        for name in names:
            os.stat(os.path.join(place, name))  # noqa: PTH116, PTH118 - no Path for each


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work took: seconds of clock, of the processor in all processes, and memory.

    peak_mib: the greatest sum of PSS over all processes, 0 if nobody looked.
    """

    clock_s: float
    processor_s: float
    peak_mib: float = 0


def make_environment(home: Path, tree: Path = ROOT) -> dict[str, str]:
    """Return the environment of a program of this tree that keeps its own files in `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAGGER_")}
    names = ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    return kept | dict.fromkeys(names, str(home)) | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(tree)}


def run_command(
    command: Sequence[object],
    environment: Mapping[str, str],
    *,
    watch_memory: bool,
    accepted: Collection[int] = (0,),
) -> Cost:
    """Run a command and wait for all processes that it started, also those in other sessions.

    watch_memory: looking at the memory takes time of the processor, so such a run has no good
    times. The caller has no other child processes. Raises CalledProcessError for an exit code that
    is not accepted.
    """
    adopt_orphans()
    before, started = get_children_s(), time.perf_counter()
    with subprocess.Popen(
        [*map(str, command)], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        peak_mib = watch_peak_mib(process) if watch_memory else 0.0
        code = process.wait()
        clock_s = time.perf_counter() - started
    while psutil.Process().children():
        os.wait()
    if code not in accepted:
        raise subprocess.CalledProcessError(code, [*map(str, command)])
    return Cost(clock_s, get_children_s() - before, peak_mib)


def adopt_orphans() -> None:
    """Make processes whose parent ends children of this one, where the system can do so (Linux).

    Otherwise nobody would wait for them here, and their processor time would be lost.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def get_children_s() -> float:
    """Return the processor time of all children that ended and were waited for, with theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def get_processor_s() -> float:
    """Return the processor time of this process and of all that it started, ended or not."""
    total = time.process_time() + get_children_s()
    for child in psutil.Process().children(recursive=True):
        total += sum(child.cpu_times()[:4])  # user and system, its own and that of its children
    return total


def ask(process: subprocess.Popen[str], request: str) -> str:
    """Send a line to a process that takes turns; return the rest of the line that begins `answer`.

    Raises SystemExit where the process ends instead.
    """
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{request}\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("answer "):
            return line.removeprefix("answer ")
    raise SystemExit(f"a side of the benchmark ended early: {process.args!r}")


def watch_peak_mib(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> float:
    """Return the peak memory of a process and its descendants, once it has ended."""
    peaks, has_ended = [0.0], Event()

    def look() -> None:
        while not has_ended.wait(MEMORY_INTERVAL_S):
            peaks.append(get_pss_mib(process.pid))

    observer = Thread(target=look)
    observer.start()
    process.wait()
    has_ended.set()
    observer.join()
    return max(peaks)


def get_pss_mib(pid: int) -> float:
    """Return the memory of a process and its descendants; shared memory counts once."""
    total = 0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):  # it has just ended
                total += process.memory_full_info().pss
    return total / MIB


def describe_machine() -> str:
    """Return the processor, the cores, the versions, and how busy the machine is, as one line."""
    names = [
        line.partition(": ")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{CORES} cores of {names[0] if names else platform.processor()}, Python"
        f" {platform.python_version()}; load over 1, 5 and 15 minutes: {load}"
    )


def copy_fresh(source: Path, target: Path) -> Path:
    """Copy a folder to a place that is empty afterwards of anything else."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))
