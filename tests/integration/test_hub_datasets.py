"""Data sets of the Hub and of `save_to_disk`: read, kept as files, and refused in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Audio, ClassLabel, DatasetDict, Features, List, Value

from tagger.cli import main
from tagger.errors import LibraryError
from tagger.records import Failure
from tagger.training.clips import Clip, Dataset
from tagger.training.hub_datasets import is_saved_dataset, make_clips, read_saved_dataset
from tests.builders import build_audio
from tests.checkpoints import save
from tests.hub import Hub, serving, start_tagger, tagger

RunTagger = Callable[..., subprocess.CompletedProcess[str]]

GENRES = ["Jazz", "Rock", "hip hop"]
CLASSES = ClassLabel(names=GENRES)
SOUND = {"bytes": Value("binary"), "path": Value("string")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "hubert", "hubert")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a folder with a folder for each genre, two clips in each."""
    root = tmp_path_factory.mktemp("clips")
    for number, genre in enumerate(GENRES):
        (root / genre).mkdir()
        for clip in range(2):
            path = root / genre / f"{genre}.0000{clip}.wav"
            build_audio(path, seconds=1.5, seed=2 * number + clip)
    return root


@pytest.fixture(autouse=True, scope="module")
def _no_bars() -> None:
    datasets.disable_progress_bars()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        yield hub


def table(columns: dict[str, list[Any]], **kinds: Any) -> Any:
    """Make a Dataset; sound is put in as it lies in Parquet, for to encode it takes torchcodec."""
    features = Features({name: kinds.get(name, Value("string")) for name in columns})
    made = datasets.Dataset.from_dict(columns, features=features)
    return made.cast_column("audio", Audio()) if kinds.get("audio") is SOUND else made


def gtzan(clips: Path) -> Any:
    """Make what marsyas/gtzan looks like: file, audio as bytes, genre as a class."""
    paths = sorted(clips.glob("*/*.wav"))
    sounds = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    genres = [GENRES.index(path.parent.name) for path in paths]
    columns: dict[str, list[Any]] = {
        "file": [str(path) for path in paths],
        "audio": sounds,
        "genre": genres,
    }
    return table(columns, audio=SOUND, genre=CLASSES)


def parquet(made: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True)
    made.to_parquet(str(path))
    return path


def saved(made: Any, place: Path) -> Path:
    made.save_to_disk(str(place))
    return place


def evaluate(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", "--json", *map(str, args)]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def on_hub(hub: Hub, name: str, model: Path, run: RunTagger = tagger, **environment: str) -> Any:
    """Evaluate on a data set of the Hub; returns the measures, or the one line of the error."""
    done = run(hub.endpoint, "evaluate", name, "-m", model, "--json", **environment)
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        return json.loads(done.stdout)
    *_, line = done.stderr.splitlines()
    assert done.returncode == 3, done.stderr
    return line


@pytest.mark.slow
def test_what_save_to_disk_made_is_read_and_its_sound_is_written_once(
    clips: Path, model: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = evaluate(capsys, clips, "-m", model)
    place = saved(gtzan(clips), tmp_path / "gtzan")
    assert is_saved_dataset(place)
    assert not is_saved_dataset(clips)
    found = evaluate(capsys, place, "-m", model)
    assert found["confusion"] == expected["confusion"]
    assert found["accuracy"]["clips"] == 6
    kept = sorted((home / "tagger" / "datasets" / "gtzan").rglob("*.wav"))
    originals = sorted(clips.glob("*/*.wav"))
    assert [path.read_bytes() for path in kept] == [path.read_bytes() for path in originals]
    assert kept[0].name == "Jazz.00000.wav"
    assert kept[0].parent.name == "Jazz"
    assert kept[0].parent.parent.name.startswith("000000-")
    before = [path.stat() for path in kept]
    kept[-1].write_bytes(b"RIFF")
    evaluate(capsys, place, "-m", model)
    assert [path.stat() for path in kept][:-1] == before[:-1]
    assert kept[-1].read_bytes() == originals[-1].read_bytes()
    assert sorted((home / "tagger" / "datasets" / "gtzan").rglob("*.*")) == kept


def test_rows_keep_their_order_parts_and_people(clips: Path, tmp_path: Path) -> None:
    made = gtzan(clips).add_column("artist", ["A", None, " B ", "", "C", "C"])
    splits = DatasetDict({"train": made.select([5, 0]), "dev": made.select([2]), "x": made})
    found = read_saved_dataset(saved(splits, tmp_path / "set"), {}, tmp_path / "cache")
    assert [clip.labels[0] for clip in found.clips[:3]] == ["hip hop", "Jazz", "Rock"]
    assert [clip.part for clip in found.clips] == ["train", "train", "validation", *[""] * 6]
    assert [clip.artist for clip in found.clips[:3]] == ["C", "A", "B"]
    alone = DatasetDict({"train": made})
    single = read_saved_dataset(saved(alone, tmp_path / "alone"), {}, tmp_path / "cache")
    assert {clip.part for clip in single.clips} == {""}
    assert len({clip.track.path for clip in (*found.clips, *single.clips)}) == 15


def test_rows_without_sound_or_label_are_told(clips: Path, tmp_path: Path) -> None:
    here = next(clips.glob("Rock/*.wav"))
    gone = Path(shutil.copy(here, tmp_path / "gone.wav"))
    data = here.read_bytes()
    sounds = [
        {"bytes": None, "path": str(here)},
        {"bytes": data, "path": "../../odd name\0.x"},
        {"bytes": None, "path": str(gone)},
        {"bytes": None, "path": None},
        None,
        {"bytes": data, "path": "secret.wav"},
        {"bytes": data, "path": "unknown.wav"},
    ]
    genres = [1, 1, 1, 1, 1, -1, None]
    place = saved(
        table({"audio": sounds, "genre": genres}, audio=dict(SOUND), genre=CLASSES), tmp_path / "s"
    )
    gone.unlink()
    found = read_saved_dataset(place, {}, tmp_path / "cache")
    assert found.clips[0].track.path == here
    assert Path(found.clips[1].track.path).parents[2] == tmp_path / "cache" / "s"
    assert found.clips[1].track.path.suffix == ".wav"
    reasons = [failure.reason for failure in found.left_out]
    assert reasons == ["its sound is not in the row and not on disk"] * 3 + ["it has no label"] * 2
    assert str(found.left_out[0].track.path) == str(gone)


def test_a_row_of_a_stranger_names_no_file_of_this_machine(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, cache = next(clips.glob("Rock/*.wav")), tmp_path / "cache"
    cache.mkdir()
    downloaded = cache / "blob.wav"
    downloaded.symlink_to(private)  # as in Hugging Face's cache
    monkeypatch.chdir(private.parent)
    names = [str(private), private.name, f"{cache}/../{private}", str(downloaded)]
    sounds = [{"bytes": None, "path": name} for name in names]
    columns: dict[str, list[Any]] = {"audio": sounds, "genre": [1] * len(names)}
    made = table(columns, audio=SOUND, genre=CLASSES)
    found = list(make_clips("team/set", made, tmp_path / "kept", [cache]))
    assert [clip.track.path for clip in found if isinstance(clip, Clip)] == [downloaded]
    reasons = {each.reason for each in found if isinstance(each, Failure)}
    assert reasons == {"its sound is neither in the row nor downloaded"}


@pytest.mark.parametrize(
    ("columns", "labels"),
    [
        ({"label": (CLASSES, 0), "genre": (CLASSES, 1)}, ("Rock",)),
        ({"label": (Value("string"), "Soul"), "mood": (CLASSES, 1)}, ("Soul",)),
        ({"labels": (List(CLASSES), [2, 0])}, ("hip hop", "Jazz")),
        ({"genres": (List(Value("string")), ["Ska", "", "Dub"])}, ("Ska", "Dub")),
        ({"style": (CLASSES, 2), "title": (Value("string"), "T")}, ("hip hop",)),
        ({"style": (CLASSES, 2), "mood": (CLASSES, 0)}, ()),
        ({"style": (Value("string"), "Soul")}, ()),
        ({"label": (Value("int64"), 3)}, ()),
    ],
)
def test_the_column_of_labels_is_found(
    clips: Path, tmp_path: Path, columns: dict[str, tuple[Any, Any]], labels: tuple[str, ...]
) -> None:
    sound = str(next(clips.glob("*/*.wav")))
    kinds = {name: kind for name, (kind, _) in columns.items()}
    values = {name: [value] for name, (_, value) in columns.items()}
    place = saved(table({"audio": [sound], **values}, **kinds), tmp_path / "set")
    if labels:
        assert [clip.labels for clip in read(place).clips] == [labels]
        return
    with pytest.raises(LibraryError, match=f"has the columns audio, {', '.join(columns)}: which"):
        read(place)


def read(place: Path) -> Dataset:
    return read_saved_dataset(place, {}, place.parent / "cache")


def test_a_folder_that_is_damaged_or_has_no_sound_is_one_line(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = saved(table({"genre": ["Jazz"]}), tmp_path / "silent")
    broken = saved(gtzan(clips), tmp_path / "broken")
    for path in broken.glob("*.arrow"):
        path.write_bytes(b"nothing")
    for place, words in (
        (silent, "which one has the sound"),
        (broken, "cannot read the data set"),
    ):
        assert main(["evaluate", str(place)]) == 3
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_without_the_library_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert main(["evaluate", "team/set"]) == 3
    assert "pip install 'tagger-music[train]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_data_set_of_the_hub_is_downloaded_once_and_works_offline_from_then_on(
    hub: Hub, clips: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = evaluate(capsys, clips, "-m", model)
    parquet(gtzan(clips), tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    hub.publish("datasets/team/gtzan", tmp_path / "set")
    hub.gated.add("datasets/team/gtzan")
    refused = on_hub(hub, "team/gtzan", model)
    assert "the data set team/gtzan is gated: accept its terms at" in refused
    assert f"{hub.endpoint}/datasets/team/gtzan, then log in (hf auth login)" in refused
    found = on_hub(hub, "team/gtzan", model, HF_TOKEN=hub.token)
    assert found["confusion"] == expected["confusion"]
    assert found["dataset"] == "team/gtzan"
    offline = on_hub(hub, "team/gtzan", model, start_tagger, HF_HUB_OFFLINE="1")
    assert offline["confusion"] == expected["confusion"]
    assert hub.downloads == ["train-00000-of-00001.parquet"]


@pytest.mark.slow
def test_what_the_hub_does_not_give_is_one_line_with_the_cure(
    hub: Hub, model: Path, home: Path
) -> None:
    missing = on_hub(hub, "team/none", model)
    assert (
        f"there is no folder team/none, and no data set of that name at {hub.endpoint}" in missing
    )
    assert "hf auth login" in missing
    offline = on_hub(hub, "team/none", model, HF_HUB_OFFLINE="1")
    for words in (
        "team/none is not in the cache",
        str(home),
        "HF_HUB_OFFLINE is set: connect once",
    ):
        assert words in offline
    nowhere = start_tagger("http://[bad", "evaluate", "team/none", "-m", model)
    assert nowhere.returncode == 3
    assert "HF_ENDPOINT is not an address" in nowhere.stderr


@pytest.mark.slow
def test_a_script_is_not_run_but_the_hubs_copy_is_read(
    hub: Hub, clips: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old.py").write_text("raise SystemExit('remote code ran')", "utf-8")
    hub.publish("datasets/team/old", tmp_path / "set")
    refused = on_hub(hub, "team/old", model)
    assert "the data set team/old is a script, which tagger does not run" in refused
    assert "refs/convert/parquet" in refused
    for name in ("all", "other"):
        parquet(gtzan(clips), tmp_path / "copy" / name / "train" / "0000.parquet")
    hub.publish("datasets/team/old", tmp_path / "copy", "refs/convert/parquet")
    assert on_hub(hub, "team/old", model)["accuracy"]["clips"] == 6
    assert hub.downloads.count("0000.parquet") == 1
    offline = on_hub(hub, "team/old", model, HF_HUB_OFFLINE="1")
    assert offline["accuracy"]["clips"] == 6


@pytest.mark.slow
def test_files_of_sound_are_read_from_the_hubs_copy(
    hub: Hub, clips: Path, model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(clips, tmp_path / "set"))
    hub.publish("datasets/team/files", folder)
    parquet(gtzan(clips), tmp_path / "copy" / "default" / "partial-train" / "0000.parquet")
    hub.publish("datasets/team/files", tmp_path / "copy", "refs/convert/parquet")
    assert "is incomplete (partial-train)" in on_hub(hub, "team/files", model)
    copy = tmp_path / "copy" / "default"
    (copy / "partial-train").rename(copy / "train")
    hub.publish("datasets/team/files", tmp_path / "copy", "refs/convert/parquet")
    assert on_hub(hub, "team/files", model)["accuracy"]["clips"] == 6
    assert not [name for name in hub.downloads if name.endswith(".wav")]


@pytest.mark.slow
def test_of_several_configurations_the_usual_one_is_taken(
    hub: Hub, clips: Path, model: Path, tmp_path: Path
) -> None:
    for name, words in (("all", "clips"), ("c", "several configurations")):
        root = tmp_path / name
        rows = ["configs:"]
        for number, config in enumerate(("a", name)):
            parquet(gtzan(clips).select(range(3 + number)), root / config / "train.parquet")
            rows += [f"- config_name: {config}", f"  data_files: {config}/train.parquet"]
        (root / "README.md").write_text("\n".join(["---", *rows, "---", ""]), "utf-8")
        hub.publish(f"datasets/team/{name}", root)
        found = on_hub(hub, f"team/{name}", model)
        if name == "all":
            assert found["accuracy"][words] == 4
        else:
            assert words in found
            assert "(a, c): save the right one with save_to_disk" in found
