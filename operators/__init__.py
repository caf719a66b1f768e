"""What a model is made of. This package imports none of the others.

The names are imported when they are first used: they need torch, and much of the program does not.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from operators.architecture import Architecture, Layer
    from operators.model import HybridLM
    from operators.rope import Rope
    from operators.vision.model import VisionLanguageModel
    from operators.vision.vision_language import VisionLanguage

__all__ = ["Architecture", "HybridLM", "Layer", "Rope", "VisionLanguage", "VisionLanguageModel"]

_HOMES = {
    "Architecture": "operators.architecture",
    "HybridLM": "operators.model",
    "Layer": "operators.architecture",
    "Rope": "operators.rope",
    "VisionLanguage": "operators.vision.vision_language",
    "VisionLanguageModel": "operators.vision.model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
