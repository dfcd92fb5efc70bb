"""The bundled genre model: musicnn and YAMNet on the same windows, under one head.

Importing this package is cheap; only `register` imports torch and transformers.
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The bundled folder. After `register()`, `from_pretrained` and `transformers.pipeline` take it."""


def register() -> None:
    """Make transformers' Auto classes and pipelines know the model; may be called twice."""
    from tagger.models.pretrained import register_musicnn_yamnet

    register_musicnn_yamnet()
