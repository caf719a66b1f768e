"""What the latency table says of a model: sums of layers, their errors, and what is missing."""

import pytest

from operators import Architecture
from operators.base.errors import TableError
from profiler.device.device import Device
from profiler.table.build import build
from profiler.table.latency_table import LatencyTable
from profiler.table.parts import Entry, Point, Rest
from tests.helpers.made_up_device import DECODE, PREFILL, WINDOW, MadeUpStopwatch, hybrid, model_ms

pytestmark = pytest.mark.usefixtures("own_locks")


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    "architecture",
    [
        hybrid(),
        hybrid(window=WINDOW, width=128),
        hybrid(tied_embeddings=False, meta_tokens=5),
        hybrid(rope=None),
        Architecture.model_validate(
            {
                **hybrid().model_dump(),
                "layers": [{**layer.model_dump(), "norm": "layernorm"} for layer in hybrid().layers],
            }
        ),
    ],
)
@pytest.mark.parametrize("point", [DECODE, PREFILL, Point("decode", 3, 100)])
def test_where_costs_add_up_every_model_of_known_layers_is_predicted_exactly(
    table: LatencyTable, cpu: Device, architecture: Architecture, point: Point
) -> None:
    build(table, [architecture], [point], device=cpu)
    other = architecture.model_copy(update={"layers": (*architecture.layers[2:], *architecture.layers)})
    for model in (architecture, other):
        found = table.latency(model, point)
        assert found.ms == pytest.approx(model_ms(model, point), rel=1e-9)
        assert found.error_ms == pytest.approx(0, abs=1e-9)


def test_a_layer_costs_what_it_does_beside_feed_forward_networks(
    table: LatencyTable, cpu: Device, monkeypatch: pytest.MonkeyPatch, made_up: type[MadeUpStopwatch]
) -> None:
    def made_up_ms(architecture: Architecture, point: Point) -> float:
        """Attention takes longer where the layer before it, the last one being before the first, is something
        else.
        """
        layers = [layer.operator for layer in architecture.layers]
        disturbed = sum(
            layer == "attention" != before
            for before, layer in zip(layers[-1:] + layers[:-1], layers, strict=True)
        )
        return model_ms(architecture, point) + 0.07 * disturbed

    monkeypatch.setattr(
        made_up, "__init__", lambda self, model, point, device: setattr(self, "ms", made_up_ms(model, point))
    )
    model = hybrid("a f a f f a f")
    build(table, [model], [DECODE], device=cpu)
    assert table.latency(model, DECODE).ms == pytest.approx(made_up_ms(model, DECODE), rel=1e-9)


@pytest.mark.usefixtures("made_up")
def test_attention_follows_a_line_up_to_its_window(table: LatencyTable, cpu: Device) -> None:
    full, windowed = hybrid("a f"), hybrid("a f", window=WINDOW)
    build(table, [full, windowed], [DECODE], device=cpu)
    for context in (128, 129, 200, 256, 270):
        point = Point("decode", 1, context)
        assert table.latency(full, point).ms == pytest.approx(model_ms(full, point))
        assert table.latency(windowed, point).ms == pytest.approx(model_ms(windowed, point))
    assert table.latency(windowed, Point("decode", 1, 100_000)).ms == pytest.approx(
        model_ms(windowed, DECODE)
    )
    assert [
        part.context
        for part in table.missing([full], [Point("decode", 1, context) for context in (260, 1000, 1040)])
    ] == [1000, 500]
    for context in (127, 300):  # a line says little about what lies far from it
        with pytest.raises(TableError, match="attention"):
            table.latency(full, Point("decode", 1, context))


@pytest.mark.usefixtures("made_up")
def test_predicting_measures_nothing_and_sums_by_hand(table: LatencyTable, cpu: Device) -> None:
    architecture = hybrid("a f m f f")
    build(table, [architecture], [DECODE, PREFILL], device=cpu)
    before = MadeUpStopwatch.timed
    found = table.predict(architecture, batch=1, context=256)
    assert MadeUpStopwatch.timed == before
    # width 64, batch 1: attention 0.31 + 0.002 · 256, mamba2 0.22, swiglu (0.12 · 192 / 128) three times,
    # rest 0.0512
    assert found.decode.ms == pytest.approx(0.31 + 0.512 + 0.22 + 3 * 0.18 + 0.0512)
    assert found.prefill.ms == pytest.approx((0.31 + 0.22 + 3 * 0.18) * 256 / 7 + 0.0512 + 0.256)
    assert found.decode_tokens_per_s == pytest.approx(1e3 / 1.6332)


def test_errors_of_equal_layers_add_up_and_those_of_different_ones_as_squares(table: LatencyTable) -> None:
    layers = hybrid("m f").layers
    given = {"phase": "decode", "batch": 1, "context": 1, "width": 64, "ms": 1.0, "rounds": 10}
    table.add(
        [
            Entry(**given, rope=True, what=layers[0], error_ms=0.01),
            Entry(**given, rope=True, what=layers[1], error_ms=0.02),
            Entry(**given, rope=False, what=Rest(vocabulary=512, tied_embeddings=True), error_ms=0.0),
        ]
    )
    assert table.latency(hybrid("m m m f f"), DECODE).error_ms == pytest.approx((0.03**2 + 0.04**2) ** 0.5)


@pytest.mark.usefixtures("made_up")
def test_missing_entries_are_named(table: LatencyTable, cpu: Device) -> None:
    build(table, [hybrid("m f")], [DECODE], device=cpu)
    with pytest.raises(TableError) as caught:
        table.latency(hybrid(), DECODE)
    said = str(caught.value)
    assert "2 entries are missing" in said
    assert "attention (heads=2 kv_heads=1 head_dim=32) at width 64, decode, batch 1, context 256" in said
    assert "frontrunner table build" in said
    assert "mamba2" not in said
    with pytest.raises(TableError, match="batch 7"):
        table.latency(hybrid("m f"), Point("decode", 7, 256))
    with pytest.raises(TableError, match="vocabulary=513"):
        table.latency(hybrid("m f").model_copy(update={"vocabulary": 513}), DECODE)
