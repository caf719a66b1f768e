"""What a model is made of. Imports no other package of the house."""

from operators.architecture import Architecture, Layer, Rope
from operators.model import HybridLM

__all__ = ["Architecture", "HybridLM", "Layer", "Rope"]
