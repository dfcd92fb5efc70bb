"""YAMNet (Plakal & Ellis, 2019) as a Hugging Face audio classifier of 521 kinds of sound.

Importing this package is cheap; only `register` imports torch and transformers.
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The bundled folder. After `register()`, `from_pretrained` and `transformers.pipeline` take it."""


def register() -> None:
    """Make transformers' Auto classes and pipelines know YAMNet; may be called twice."""
    from tagger.models.pretrained import register_yamnet

    register_yamnet()
