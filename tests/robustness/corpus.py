"""Try tagger on folders of music, and ask other programs whether all else stayed the same.

    python tests/robustness/corpus.py FOLDER...

By hand: it needs ffmpeg, exiftool, mediainfo, kid3-cli, metaflac, vorbis-tools, opus-tools and
AtomicParsley. Each file is copied and does in a process of its own what a scan does: its tags are
read, replaced and put back. Exit code 1 if any file crashed, hung, came out
different, or does not show the genre.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

from tagger.errors import TaggerError
from tagger.records import Tags
from tagger.tags import EXTENSIONS, read_other_fields, read_tags
from tests.replacing import restore, retag
from tests.robustness import readers

GENRE = "Corpus-Core"
TAGS = Tags((GENRE,), (GENRE,), f"{GENRE}=0.900;Rock=0.100", "corpus")
TIMEOUT_S = 300
JOBS = 2
NO_FILE_OF_OURS = "passed over"
EMPTY_TAG = re.compile(r"Handler(Type = Metadata|VendorID)")
"""All that is told of a tag of MP4 without items: undone, it may be gone."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one file: written, or the reason why not; and what went wrong."""

    path: str
    outcome: str
    findings: tuple[str, ...] = ()
    shown_by: tuple[str, ...] = ()


def try_one(source: Path) -> Result:
    """Take one file through all that tagger does with it."""
    with TemporaryDirectory() as folder:
        path = Path(folder, f"song{source.suffix}")
        shutil.copyfile(source, path)
        data = path.read_bytes()
        try:
            before, others = read_tags(path), read_other_fields(path)
            seen, sound = readers.read(path), readers.stream_hash(path)
            retag(path, TAGS)
        except TaggerError as error:
            known = source.suffix.lower() in EXTENSIONS
            touched = () if path.read_bytes() == data else ("refused, but changed",)
            return Result(str(source), str(error) if known else NO_FILE_OF_OURS, touched)
        findings = [] if read_other_fields(path) == others else ["other_fields differ"]
        written = readers.read(path)
        findings += differences("written", seen, written, sound, path, ours=False)
        shown_by = tuple(name for name, fields in written.items() if GENRE in str(fields))
        missing = [name for name in shows_a_genre(seen) if name not in shown_by]
        findings += [f"{name} showed a genre before and does not show ours" for name in missing]
        restore(path, before)
        restored = read_tags(path)
        if (restored, restored.raw, read_other_fields(path)) != (before, before.raw, others):
            findings.append("undone, the tags are others")
        findings += differences("undone", seen, readers.read(path), sound, path, ours=True)
        return Result(str(source), "written", tuple(findings), shown_by)


def shows_a_genre(seen: dict[str, readers.Fields]) -> Iterator[str]:
    for name, fields in seen.items():
        if any("genre" in field.lower() and value for field, value in fields.items()):
            yield name


def differences(
    when: str,
    before: dict[str, readers.Fields],
    after: dict[str, readers.Fields],
    sound: str,
    path: Path,
    *,
    ours: bool,
) -> Iterator[str]:
    """Yield in what other programs find that a file differs from what it was."""
    for name, old in before.items():
        first, second = (f if ours else readers.theirs(f) for f in (old, after[name]))
        known = set(old.values())  # what ID3v1 said is said again by the first ID3v2
        for key in sorted(first.keys() ^ second.keys()):
            if not EMPTY_TAG.search(key) and (key in first or second[key] not in known):
                yield f"{when}: {name}: {'lost' if key in first else 'new'}: {key}"
    if readers.stream_hash(path) != sound:
        yield f"{when}: ffmpeg hashes the streams otherwise"


def try_apart(path: Path) -> Result:
    """Try one file in a process of its own: a crash or a hang is a finding."""
    command = [sys.executable, __file__, "--one", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return Result(str(path), "hung", (f"not done after {TIMEOUT_S} s",))
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-3:]
        return Result(str(path), "crashed", (f"exit code {done.returncode}: {' | '.join(last)}",))
    fields = json.loads(done.stdout)
    found, shown = tuple(fields["findings"]), tuple(fields["shown_by"])
    return Result(fields["path"], fields["outcome"], found, shown)


def report(results: Sequence[Result]) -> bool:
    """Print what happened; tell whether anything was found."""
    shown: Counter[str] = Counter()
    for result in results:
        shown.update(result.shown_by)
    print(f"{len(results)} files")
    for outcome, count in Counter(result.outcome for result in results).most_common():
        print(f"{count:6}  {outcome}")
    print("the genre was shown by:", ", ".join(f"{n} {c}x" for n, c in shown.most_common()))
    found = [result for result in results if result.findings]
    print(f"{len(found)} files with findings")
    for result in found:
        print(f"\n{result.path} ({result.outcome})", *result.findings, sep="\n    ")
    return bool(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        try:
            result = try_one(args.one)
        except Exception:  # noqa: BLE001 - whatever it is, it is what we look for
            result = Result(str(args.one), "crashed", (traceback.format_exc(limit=-3),))
        print(json.dumps(asdict(result)))
        return 0
    files = sorted(f for folder in args.folders for f in folder.rglob("*") if f.is_file())
    with ThreadPoolExecutor(JOBS) as pool:
        return int(report(list(pool.map(try_apart, files))))


if __name__ == "__main__":
    sys.exit(main())
