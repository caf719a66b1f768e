"""What training a token costs by arithmetic."""

from collections import Counter

from operators import registry
from operators.architecture import Architecture


def training_flops(architecture: Architecture, sequence_length: int) -> float:
    """FLOPs of the model for one trained token, the mean over a sequence: three times those of the forward pass.

    They are those of the operators and the head, a multiply-add counts as 2, and meta tokens are read once a sequence. What is computed
    again to save memory does not count.
    """
    width, tokens = architecture.width, sequence_length + architecture.meta_tokens
    forward = 2 * width * architecture.vocabulary * sequence_length
    for (name, shape), count in Counter(
        (layer.operator, layer.shape) for layer in architecture.layers
    ).items():
        flops = registry.get(name).flops
        forward += count * sum(flops(width, shape, context) for context in range(1, tokens + 1))
    return 3 * forward / sequence_length
