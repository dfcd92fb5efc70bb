"""Other ways to name the genres of a library, as tasks that the suite runs."""

import os
import sys
from pathlib import Path

from tests.benchmarks.stages import Task, find_tracks, load_bundled, load_window_plan


def plain_loop(library: Path) -> Task:
    """Run a simple loop of librosa, torch and mutagen, on the same windows."""
    import librosa
    import mutagen
    import torch

    from tagger.audio import plan_windows

    classifier, _ = load_bundled()
    plan = load_window_plan()
    rate_hz, window_s = plan["rate_hz"], plan["window_s"]
    paths = [track.path for track in find_tracks(library)]

    def tag(path: Path) -> None:
        sound, _ = librosa.load(path, sr=rate_hz, mono=True)
        starts = plan_windows(len(sound) / rate_hz, window_s, plan["count"])
        size = round(window_s * rate_hz)
        windows = [sound[round(start * rate_hz) :][:size] for start in starts]
        with torch.inference_mode():
            logits = classifier.model(**classifier.extractor(windows)).logits.mean(0)
        file = mutagen.File(path, easy=True)
        file["genre"] = [classifier.make_scores(logits)[0].genre]
        file.save()

    return lambda: list(map(tag, paths))


def whole_pipeline(library: Path) -> Task:
    """Run the pipeline of transformers, which decodes with ffmpeg and predicts the whole track."""
    from transformers import pipeline

    from tagger.models import musicnn_yamnet

    musicnn_yamnet.register()
    classify = pipeline("audio-classification", str(musicnn_yamnet.CHECKPOINT))
    paths = [str(track.path) for track in find_tracks(library)]
    return lambda: [classify(path) for path in paths]


def essentia(library: Path) -> Task:
    """Whole tracks through essentia's TensorflowPredictMusiCNN, both networks of musicnn."""
    from essentia import log
    from essentia.standard import MonoLoader

    from tests.benchmarks.network import make_essentia_predictor

    log.warningActive = False  # one about each network
    predict = make_essentia_predictor(str(library.with_name("graphs")), 64)
    paths = sorted(map(str, library.iterdir()))
    return lambda: [
        predict(MonoLoader(filename=path, sampleRate=16_000, resampleQuality=4)()).mean(0)
        for path in paths
    ]


def audiomuse(library: Path) -> Task:
    """Whole tracks through AudioMuse-AI's analysis, with one network of musicnn."""
    os.environ["POSTGRES_HOST"] = "127.0.0.1"  # nobody answers there: the analysis needs no answer
    sys.path.insert(0, str(library.with_name("AudioMuse-AI")))
    from tasks.analysis import song

    graphs = library.with_name("graphs")
    models = {name: str(graphs / f"{name}.onnx") for name in ("embedding", "prediction")}
    sessions = song.load_musicnn_sessions(models)
    tags = [str(number) for number in range(50)]

    def analyze(path: Path) -> None:
        found, _ = song.analyze_track(str(path), tags, models, onnx_sessions=sessions)
        assert len(found["moods"]) == len(tags)

    return lambda: list(map(analyze, sorted(library.iterdir())))
