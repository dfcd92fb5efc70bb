r"""Make the bundled genre model from its two networks and the features of labelled recordings.

    python -m docs.bundled_model.convert --features features.npz \\
        --output-dir tagger/models/musicnn_yamnet/checkpoint

The networks are those in the checkpoints of musicnn and YAMNet. The output is the same every time.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Wav2Vec2FeatureExtractor

from docs.bundled_model.fit_attributes import MOODS, STYLES, VOICES, fit_attributes
from docs.bundled_model.fit_head import LABELS, NOT_MUSIC, fit_head
from tagger.models import musicnn, yamnet
from tagger.models.musicnn_yamnet import register
from tagger.models.pretrained import (
    MusicnnForAudioClassification,
    MusicnnYamnetConfig,
    MusicnnYamnetForAudioClassification,
    YamnetForAudioClassification,
)
from tagger.models.yamnet.modeling import RATE_HZ


def build_model(features: Path) -> MusicnnYamnetForAudioClassification:
    """Combine the networks with a newly fitted head."""
    towers = MusicnnForAudioClassification.from_pretrained(musicnn.CHECKPOINT)
    sounds = YamnetForAudioClassification.from_pretrained(yamnet.CHECKPOINT, dtype=torch.float32)
    classes = [str(name) for _, name in sorted((sounds.config.id2label or {}).items())]
    labels = dict(enumerate(LABELS))
    config = MusicnnYamnetConfig(
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
        audioset_classes=len(classes),
        not_music=list(NOT_MUSIC),
        styles={name: style.genre for name, style in STYLES.items()},
        moods=list(MOODS),
        voices=list(VOICES),
    )
    model = MusicnnYamnetForAudioClassification(config)
    model.networks.musicnn.load_state_dict(towers.musicnn.state_dict())
    model.networks.yamnet.load_state_dict(sounds.yamnet.state_dict())
    model.networks.yamnet_classifier.load_state_dict(sounds.classifier.state_dict())
    head = {name: torch.as_tensor(value) for name, value in fit_head(features, classes).items()}
    model.head.load_state_dict(head)
    attributes = fit_attributes(features, classes)
    model.networks.attribute_head.load_state_dict(
        {name: torch.as_tensor(value) for name, value in attributes.items()}
    )
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--features", type=Path, required=True, help="labelled features (npz)")
    parser.add_argument("--output-dir", type=Path, required=True)
    options = parser.parse_args(arguments)
    register()
    model = build_model(options.features)
    # Only the file is in float16: config.json says float32, and so the model is loaded.
    weights = {
        name: value if "head." in name else value.half()
        for name, value in model.state_dict().items()
    }
    model.save_pretrained(options.output_dir, state_dict=weights)
    extractor = Wav2Vec2FeatureExtractor(
        do_normalize=False,
        return_attention_mask=True,
        chunk_length_s=model.config.window_samples / RATE_HZ,
    )
    extractor.save_pretrained(options.output_dir)


if __name__ == "__main__":
    main()
