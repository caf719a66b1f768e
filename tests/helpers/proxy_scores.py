"""Makes the score of a training that never ran."""

import math

from proxy_train.settings import ProxyScore, ProxySettings


def score(loss: float, settings: ProxySettings, seed: int) -> ProxyScore:
    return ProxyScore(
        loss=loss,
        perplexity=math.exp(loss),
        bits_per_byte=1.0,
        unigram_loss=6.0,
        tokens=settings.tokens,
        steps=settings.steps,
        seconds=1.0,
        tokens_per_s=1.0,
        curve=(),
        backends={},
        device="cpu",
        seed=seed,
    )
