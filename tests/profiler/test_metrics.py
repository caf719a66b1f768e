"""Keys of figures: what is written is what is read."""

import pytest

from profiler.metrics import MetricName


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("params", MetricName("params")),
        ("decode_ms@b1", MetricName("decode_ms", batch=1)),
        ("decode_ms@b64.c32768", MetricName("decode_ms", batch=64, context=32_768)),
        ("largest_batch@c32768", MetricName("largest_batch", context=32_768)),
        ("decode_ms@b1/H100", MetricName("decode_ms", batch=1, kind="H100")),
        ("decode_ms@b1.c8/A100-SXM4.40", MetricName("decode_ms", 1, 8, "A100-SXM4.40")),
        ("throughput_tokens_per_s/H100", MetricName("throughput_tokens_per_s", kind="H100")),
        ("loss@t20000", MetricName("loss", tokens=20_000)),
    ],
)
def test_a_key_is_taken_apart_and_written_again(text: str, name: MetricName) -> None:
    assert MetricName.parse(text) == name
    assert str(name) == text


NO_KEYS = """
@ /H100 @b1 decode_ms@ decode_ms@b decode_ms@b01 decode_ms@b1. decode_ms@b1/ decode_ms@c8.b1 decode_ms@b1.b2
a/b/c decode_ms@x1 decode_ms@b-1 decode_ms/H100@b1 a@b1@b1 decode_ms@b² decode_ms@b٣
"""


@pytest.mark.parametrize("text", ["", "decode_ms@b1\n", *NO_KEYS.split()])
def test_what_is_no_key_is_a_metric_by_all_its_characters(text: str) -> None:
    assert MetricName.parse(text) == MetricName(text)
    assert str(MetricName.parse(text)) == text


def test_the_plain_name_leaves_the_kind_of_device_out() -> None:
    assert str(MetricName.parse("decode_ms@b1.c8/H100").plain) == "decode_ms@b1.c8"
    assert MetricName.parse("params").plain == MetricName("params")
