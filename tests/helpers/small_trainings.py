"""Settings and models of trainings that take a fraction of a second."""

from operators.architecture import Architecture
from proxy_train.settings import ProxyScore, ProxySettings

SETTINGS = ProxySettings(tokens=8_000, batch_size=2, sequence_length=64, validation_tokens=640)


def model_of(text: str = "a f", width: int = 32, **rest: object) -> Architecture:
    return Architecture.from_shorthand(
        text, width=width, vocabulary=272, genes={"attention": {"head_dim": 16}}, **rest
    )


def without_time(score: ProxyScore) -> ProxyScore:
    return score.model_copy(update={"seconds": 0.0, "tokens_per_s": 0.0, "flops_per_s": 0.0})
