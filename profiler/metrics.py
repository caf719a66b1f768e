"""The names in a profile: which metrics there are, and the key that one figure of a metric has.

A key shows where its figure was taken:

- `decode_ms@b1`: at batch 1 and the first context of the profile
- `decode_ms@b1.c32768`: at another context
- `decode_ms@b1/H100`: on one of several kinds of device
- `loss@t20000`: after so many tokens of training
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """A figure of a profile or of a training.

    unit: of the figure; empty where it has none
    maximize: whether more is better
    per: what its key carries: nothing, the batch size and the context, or the context alone
    description: in a few words, for people
    needs: the setting of a profile without which the metric is not measured, or two with `and` between;
        empty where it is always measured
    """

    unit: str
    maximize: bool
    per: Literal["architecture", "batch", "context"]
    description: str
    needs: str = ""


METRICS: dict[str, Metric] = {
    "params": Metric(
        "parameters", False, "architecture", "parameters, embeddings included, a tied head once"
    ),
    "param_bytes": Metric("bytes", False, "architecture", "bytes of the parameters"),
    "prefill_ms": Metric(
        "ms", False, "batch", "time to first token: to read the context and choose the next one, median"
    ),
    "decode_ms": Metric(
        "ms", False, "batch", "time per output token: one decode step of the whole batch, median"
    ),
    "decode_tokens_per_s": Metric("tokens/s", True, "batch", "tokens decoded by the whole batch in a second"),
    "anchor_ratio": Metric("", False, "batch", "decode_ms over that of the anchor model timed around it"),
    "peak_memory_bytes": Metric("bytes", False, "batch", "weights, state and temporaries at their highest"),
    "state_bytes": Metric("bytes", False, "batch", "decode state: key-value caches and recurrent state"),
    "kv_bytes": Metric("bytes", False, "batch", "the part of the state that grows with the context"),
    "recurrent_bytes": Metric("bytes", False, "batch", "the part of the state that does not grow"),
    "achieved_bytes_per_s": Metric(
        "bytes/s", True, "batch", "bytes that a decode step has to move, over its time"
    ),
    "bandwidth_fraction": Metric(
        "", True, "batch", "share of a copy's bytes per second; above 1 where weights stay in a cache"
    ),
    "energy_j_per_token": Metric(
        "J/token", False, "batch", "energy of the device for each decoded token", "energy_seconds"
    ),
    "power_w": Metric("W", False, "batch", "mean power of the device while it decodes", "energy_seconds"),
    "largest_batch": Metric(
        "rows",
        True,
        "context",
        "most rows that can be decoded at once in the device's memory",
        "largest_batch",
    ),
    "throughput_tokens_per_s": Metric(
        "tokens/s", True, "context", "tokens decoded in a second at the largest batch", "largest_batch"
    ),
    "ttft_ms": Metric(
        "ms", False, "batch", "from pictures and a prompt to the first token, all parts together", "images"
    ),
    "preprocess_ms": Metric(
        "ms", False, "batch", "resizing and normalizing the pictures on the CPU", "images"
    ),
    "tower_ms": Metric("ms", False, "batch", "from normalized images to patches", "images"),
    "projector_ms": Metric("ms", False, "batch", "from patches to image tokens", "images"),
    "images_per_s": Metric(
        "images/s", True, "batch", "images that tower and projector turn into tokens in a second", "images"
    ),
    "ttft_energy_j": Metric(
        "J",
        False,
        "batch",
        "energy of the device from pictures and prompts to the first tokens of the whole batch",
        "images and energy_seconds",
    ),
    "image_tokens": Metric("tokens", False, "architecture", "tokens of one image", "images"),
}


_WRITTEN = re.compile(r"(?P<metric>[^@/]+)(?:@(?P<at>[bct][0-9]+(?:\.[bct][0-9]+)*))?(?:/(?P<kind>[^@/]+))?")
_FIELDS = {"b": "batch", "c": "context", "t": "tokens"}


@dataclass(frozen=True)
class MetricName:
    """The key of a figure, split into its parts; `str` writes it.

    metric: the key of METRICS
    batch: rows at once; None where the figure does not depend on them
    context: tokens a row; None at the first context of the profile, and where the figure does not depend on
        it
    kind: of the device, where a run has several; empty where it has not
    tokens: of training after which the figure was taken; None at the end of the training
    """

    metric: str
    batch: int | None = None
    context: int | None = None
    kind: str = ""
    tokens: int | None = None

    @staticmethod
    def parse(text: str) -> "MetricName":
        """The name that is written as this text.

        A text that is no figure's key is a metric of its own, with all its characters.
        """
        return _parsed(text)

    @property
    def plain(self) -> "MetricName":
        """The same figure on any kind of device."""
        return replace(self, kind="")

    def __str__(self) -> str:
        numbers = ((letter, getattr(self, field)) for letter, field in _FIELDS.items())
        at = ".".join(f"{letter}{number}" for letter, number in numbers if number is not None)
        return self.metric + (f"@{at}" if at else "") + (f"/{self.kind}" if self.kind else "")


@lru_cache(maxsize=4096)
def _parsed(text: str) -> MetricName:
    match = _WRITTEN.fullmatch(text)
    if match is None:
        return MetricName(text)
    numbers = {_FIELDS[part[0]]: int(part[1:]) for part in (match["at"] or "").split(".") if part}
    name = MetricName(match["metric"], kind=match["kind"] or "", **numbers)
    # A text such as `decode_ms@b01` is no key.
    return name if str(name) == text else MetricName(text)


@lru_cache(maxsize=4096)
def key(name: str, *, batch: int | None = None, context: int | None = None) -> str:
    """The key of a metric at a batch size and a context, as `decode_ms@b1.c32768`; see `MetricName`.

    Kept, as every profile of a run has the same few.
    """
    return str(MetricName(name, batch, context))
