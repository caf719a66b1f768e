"""Measuring models that see, on the CPU: every figure, its arithmetic, and what is refused."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from operators import Architecture
from operators.base.errors import DeviceError
from operators.cost import cost
from operators.vision.cost import vision_cost
from operators.vision.model import VisionLanguageModel
from profiler.device.device import Device, open_device
from profiler.measuring import anchor as anchoring
from profiler.measuring import pace, vision
from profiler.measuring.decode_energy import decode_energy
from profiler.measuring.measure import measure
from profiler.profile import METRICS, Profile, ProfileSettings
from tests.helpers import quick_profile
from tests.helpers.made_up_device import MadeUpPace
from tests.helpers.vision_models import vision_language

QUICK = quick_profile.QUICK.model_copy(update={"batch_sizes": (1, 2), "contexts": (6, 9), "images": 2})
WITH_ENERGY = QUICK.model_copy(update={"energy_seconds": 5.0})
SMALL = vision_language(language={"layers": "a f m f", "meta_tokens": 1})

pytestmark = pytest.mark.usefixtures("own_locks")


@pytest.fixture(scope="module")
def profile() -> Profile:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "_STEPS", 1)
        few = {"min_samples": 5, "min_seconds": 0.0, "max_seconds": 0.01}
        patch.setattr(anchoring, "_SETTINGS", anchoring._SETTINGS.model_copy(update=few))
        return measure(SMALL, WITH_ENERGY)


def test_every_figure_is_there_and_positive(profile: Profile) -> None:
    metrics = profile.metrics()
    seen = {name: metric for name, metric in METRICS.items() if metric.needs in ("", "images")}
    expected = {
        f"{name}@b{batch}{at}"
        for name, metric in seen.items()
        if metric.per == "batch"
        for batch in (1, 2)
        for at in ("", ".c9")
    }
    assert set(metrics) == expected | {"params", "param_bytes", "image_tokens"}
    assert all(value > 0 for value in metrics.values())
    assert expected == {key for name in seen if METRICS[name].per == "batch" for key in QUICK.keys(name)}
    latencies = {name for name in expected if "_ms@" in name or "_per_s@" in name}
    assert latencies <= set(profile.errors())
    assert profile.contexts == (6, 9)


def test_counts_are_those_of_the_whole_model_at_text_and_image_tokens(profile: Profile) -> None:
    arithmetic = vision_cost(SMALL)
    assert (profile.params, profile.param_bytes) == (arithmetic.params, arithmetic.param_bytes)
    assert profile.metrics()["image_tokens"] == 4
    of_decoder = cost(SMALL.language, batch=2, context=9 + 2 * 4)
    assert profile.metrics()["state_bytes@b2.c9"] == of_decoder.state_bytes
    (point,) = [point for point in profile.vision if (point.batch, point.context) == (2, 9)]
    assert point.flops == vision_cost(SMALL, batch=2, text_tokens=9, images=2).first_token_flops
    assert profile.metrics()["peak_memory_bytes@b2.c9"] > arithmetic.param_bytes + of_decoder.state_bytes


def test_the_whole_is_not_less_than_its_parts(profile: Profile) -> None:
    for point in profile.vision:
        parts = (point.preprocess, point.tower, point.projector)
        assert min(point.first_token.samples_ms) > 0.5 * sum(min(part.samples_ms) for part in parts)
        images = 1e3 * point.batch * 2 / (point.tower.median_ms + point.projector.median_ms)
        assert (
            profile.metrics()[profile.key("images_per_s", batch=point.batch, context=point.context)] == images
        )


def test_a_device_without_a_counter_says_which_energies_are_absent(profile: Profile) -> None:
    assert set(profile.absent) == {"energy_j_per_token", "power_w", "ttft_energy_j"}
    assert all("counter" in reason for reason in profile.absent.values())


def test_the_energy_of_the_first_token_is_that_of_all_passes_over_their_number(
    cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = vision.Session(VisionLanguageModel(SMALL).eval(), 2, (9, 7), 1, 3, cpu, 0)
    passes = 0

    def counted() -> None:  # each pass takes 7 ms of the made-up clock and 3 J
        nonlocal passes
        passes += 1

    monkeypatch.setattr(session, "first_token", counted)
    monkeypatch.setattr(cpu, "energy_j", lambda: 3.0 * passes)
    monkeypatch.setattr(cpu, "power_w", lambda: 3.0 / 0.007)
    monkeypatch.setattr(vision, "decode_energy", partial(decode_energy, clock=lambda: 0.007 * passes))
    monkeypatch.setattr(cpu, "timed", lambda run: (run(), 7.0)[1])
    with torch.inference_mode():
        beside: Any = MadeUpPace(None)
        point = vision._measured(session, cpu, WITH_ENERGY, beside, None, with_energy=True)
    assert point.energy is not None
    assert point.metrics()["ttft_energy_j"] == pytest.approx(3.0)
    assert point.energy.seconds == pytest.approx(0.007 * point.energy.tokens)
    assert point.energy.disagreement == ""
    assert point.device_s > point.energy.seconds >= 5


def test_what_has_work_on_the_core_of_a_host_is_taken_on_a_quiet_one(cpu: Device) -> None:
    """Tower and projector are the GPU's alone."""
    session = vision.Session(VisionLanguageModel(SMALL).eval(), 2, (9, 7), 1, 3, cpu, 0)
    steady: Any = MadeUpPace(None)
    core: Any = SimpleNamespace(beside=lambda elapsed: lambda: (elapsed(), 1000.0)[1])
    with torch.inference_mode():
        point = vision._measured(session, cpu, QUICK, steady, core, with_energy=False)
    assert point.preprocess.median_ms == point.first_token.median_ms == 1000.0
    assert max(point.tower.median_ms, point.projector.median_ms) < 1000.0


def test_a_profile_is_read_back(profile: Profile) -> None:
    assert Profile.model_validate_json(profile.model_dump_json()) == profile
    assert profile.lock_s > profile.conditions.lock_s


@torch.no_grad()
def test_the_session_chooses_the_token_that_the_model_does() -> None:
    model = VisionLanguageModel(SMALL).eval()
    session = vision.Session(
        model, images=2, picture=(9, 7), batch=2, context=3, device=open_device("cpu"), seed=0
    )
    placeholders = torch.full((2, 8), SMALL.image_token)
    tokens = torch.cat([placeholders, session._text.where(session._text != SMALL.image_token, 0)], 1)
    session._text = tokens[:, 8:]
    expected = model(tokens, session._pixels)[:, -1].argmax(-1)
    session.tower.run()
    session.projector.run()
    assert torch.equal(session.prefill.run(), expected)


@torch.no_grad()
def test_buffers_stay_where_a_graph_was_captured_with_them(
    cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph keeps addresses: what moves away leaves it writing into memory of others."""
    names = ("_pixels", "_patches", "_features", "_text", "_all")

    def addresses(session: Any) -> list[int]:
        return [getattr(session, name).data_ptr() for name in names]

    seen = []
    make = vision._work

    def noted(launch: Any, device: Device) -> Any:
        seen.append(addresses(launch.__self__))
        return make(launch, device)

    monkeypatch.setattr(vision, "_work", noted)
    session = vision.Session(VisionLanguageModel(SMALL).eval(), 2, (9, 7), 1, 3, cpu, 0)
    session.first_token()
    assert seen == [addresses(session)] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.inference_mode()
def test_replays_leave_the_memory_of_others_alone() -> None:
    device = open_device("cuda:0")
    session = vision.Session(vision.random_model(SMALL, device, "auto", 0), 2, (9, 7), 2, 3, device, 0)
    others = [torch.full((count,), 7, dtype=torch.uint8, device="cuda") for count in [512, 4096, 65536] * 200]
    session.first_token()
    device.synchronize()
    assert all(bool((each == 7).all()) for each in others)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"profile\.images 0: expected at least 1 for a model that sees"):
        measure(SMALL, QUICK.model_copy(update={"images": 0}))
    with pytest.raises(DeviceError, match=r"profile\.images 2: expected 0 for a language model"):
        measure(Architecture.from_shorthand("a f", width=32, vocabulary=64), QUICK)
    pytest.importorskip("xllamacpp")
    with pytest.raises(DeviceError, match=r"cannot be measured in llama\.cpp yet"):
        measure(SMALL, QUICK, device="llama.cpp")


def test_pictures_have_the_size_that_is_asked_for() -> None:
    (picture,) = vision.random_pictures(1, (9, 7), seed=0)
    assert (picture.size, picture.getpixel((0, 0)) != picture.getpixel((1, 0))) == ((9, 7), True)
    with pytest.raises(ValidationError, match="picture: expected images of at least 1 beside it, got 0"):
        ProfileSettings(picture=(9, 7))
