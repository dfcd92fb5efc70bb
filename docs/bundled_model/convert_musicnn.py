r"""Make musicnn's checkpoint from the published wheel.

    python -m docs.bundled_model.convert_musicnn --wheel musicnn-0.1.0-py3-none-any.whl \
        --output-dir tagger/models/musicnn/checkpoint

The head is that of the bundled checkpoint; version 0.1.0 of tagger fitted it. Needs TensorFlow
beside torch (pip install tensorflow-cpu). The output is the same every time.
"""

import argparse
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagger.models.musicnn import CHECKPOINT, register
from tagger.models.pretrained import MusicnnFeatureExtractor, MusicnnForAudioClassification

Arrays = Mapping[str, NDArray[np.float32]]

FOLDERS = {"msd": "musicnn/MSD_musicnn", "mtt": "musicnn/MTT_musicnn"}
CHECKPOINT_SUFFIXES = (".index", ".data-00000-of-00001")
NORM_PARTS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# TensorFlow numbers the layers in the order in which musicnn's models.py makes them.
NORMS = (
    "front_end.norm",
    "front_end.timbral.0.norm",
    "front_end.timbral.1.norm",
    "front_end.temporal.0.norm",
    "front_end.temporal.1.norm",
    "front_end.temporal.2.norm",
    "norms.0",
    "norms.1",
    "norms.2",
    "pooled_norm",
    "embedding_norm",
)
CONVOLUTIONS = (
    "front_end.timbral.0",
    "front_end.timbral.1",
    "front_end.temporal.0",
    "front_end.temporal.1",
    "front_end.temporal.2",
    "convolutions.0",
    "convolutions.1",
    "convolutions.2",
)
DENSE = ("dense", "output")
LAYERS = {"batch_normalization": NORMS, "conv2d": CONVOLUTIONS, "dense": DENSE}
VARIABLE = re.compile(r"(batch_normalization|conv2d|dense)(?:_(\d+))?/(\w+)")


def read_checkpoint(wheel: Path, folder: str) -> dict[str, NDArray[np.float32]]:
    """Read the variables of the TensorFlow checkpoint in a folder of the wheel."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as temporary, ZipFile(wheel) as archive:
        # The prefix in the wheel ends in "/", which TensorFlow no longer reads: give it a name.
        prefix = Path(temporary) / "tower"
        for suffix in CHECKPOINT_SUFFIXES:
            Path(f"{prefix}{suffix}").write_bytes(archive.read(f"{folder}/{suffix}"))
        reader = tf.train.load_checkpoint(str(prefix))
        names = sorted(reader.get_variable_to_shape_map())
        return {name: reader.get_tensor(name) for name in names}


def convert_variables(variables: Arrays) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a `MusicnnTower` by name, without the variables of the training."""
    for name, value in variables.items():
        if (match := VARIABLE.fullmatch(name)) is None:
            continue
        kind, number, part = match.groups()
        layer = LAYERS[kind][int(number or 0)]
        if kind == "batch_normalization":
            yield f"{layer}.{NORM_PARTS[part]}", torch.from_numpy(value)
        elif part == "bias":
            yield f"{layer}.bias", torch.from_numpy(value)
        else:
            yield f"{layer}.weight", convert_kernel(layer, torch.from_numpy(value)).contiguous()


def convert_kernel(layer: str, value: Tensor) -> Tensor:
    """Change the order of a kernel's axes from TensorFlow's to that of our layer.

    Convolutions come as (frames, bands, 1, filters), dense layers as (inputs, outputs).
    """
    if layer in DENSE:
        return value.T
    if layer.startswith("front_end"):
        return value.squeeze(2).permute(2, 1, 0).flatten(1)  # taps: band by band, 7 frames each
    return value.squeeze(2).permute(2, 1, 0)


def build_model(wheel: Path) -> MusicnnForAudioClassification:
    """Combine the published towers with the head of the bundled checkpoint."""
    weights = {
        f"musicnn.towers.{name}.{key}": value
        for name, folder in FOLDERS.items()
        for key, value in convert_variables(read_checkpoint(wheel, folder))
    }
    model = MusicnnForAudioClassification.from_pretrained(CHECKPOINT)
    weights |= {f"head.{key}": value for key, value in model.head.state_dict().items()}
    model.load_state_dict(weights)
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheel", type=Path, required=True, help="musicnn-0.1.0-py3-none-any.whl")
    parser.add_argument("--output-dir", type=Path, required=True)
    options = parser.parse_args(arguments)
    register()
    build_model(options.wheel).save_pretrained(options.output_dir)
    MusicnnFeatureExtractor().save_pretrained(options.output_dir)


if __name__ == "__main__":
    main()
