import importlib
import pkgutil
from pathlib import Path

import pytest

from operators.base.errors import ConfigError
from search import objectives, studies
from search.config import run as config_module
from search.objectives import CandidateMetric
from search.studies import experiment
from search.studies.experiment import ExperimentSettings

for module in pkgutil.walk_packages(studies.__path__, "search.studies."):
    importlib.import_module(module.name)
EXPERIMENTS = {settings.kind: settings for settings in ExperimentSettings.__subclasses__()}


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=str)
def test_shipped_configurations_are_valid(path):
    kind, _, device = path.stem.removeprefix("study_").rpartition("_")
    if path.stem.startswith(("law_", "study_")):
        assert device in ("cpu", "h100")
        experiment.load(EXPERIMENTS[kind], path)
    else:
        config_module.load(path)


def test_an_empty_file_is_all_defaults_and_round_trips(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("")
    config = config_module.load(path)
    path.write_text(config.to_yaml())
    assert config_module.load(path) == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("candidats: 3", "unknown key candidats: expected .*candidates"),
        ("proxy: {tokns: 3}", "proxy: unknown key tokns: expected .*tokens"),
        ("profile: {batch: 3}", "profile: unknown key batch: expected .*batch_sizes"),
        ("data: {path: x}", "data: unknown key path: expected .*source"),
        ("space: {depth: 3}", "space: unknown key depth: expected .*min_depth"),
        ("candidates: 0", "candidates: expected at least 1, got 0"),
        ("candidates: many", "candidates: expected a whole number, got 'many'"),
        ("objectives: [speed]", "unknown metric 'speed'"),
        ("objectives: [loss, loss]", "each metric once"),
        ("objectives: []", "objectives: expected at least 1 entries, got 0$"),
        ("constraints: ['params = 3']", "as in 'params <= 3e6'"),
        ("constraints: ['decode_ms@b4 <= 3']", "expected one of decode_ms@b1, decode_ms@b8"),
        ("constraints: ['decode_ms@b1.c99 <= 3']", "expected one of decode_ms@b1, decode_ms@b8"),
        ("profile: {context: 3}", "profile: unknown key context: expected .*contexts"),
        (
            "profile: {energy_seconds: 5}",
            "profile.energy_seconds: expected 0 on device cpu, as only GPUs have a counter of energy",
        ),
        (
            "{device: llama.cpp, profile: {energy_seconds: 5}}",
            "profile.energy_seconds: expected 0 on device llama.cpp, as only GPUs have a counter of energy",
        ),
        (
            "{device: llama.cpp, profile: {largest_batch: true}}",
            "profile.largest_batch: expected false on device llama.cpp",
        ),
        (
            "{device: llama.cpp, gates: {table: true}, constraints: ['decode_ms@b1 <= 1']}",
            "gates.table: expected false on device llama.cpp, which has no latency table",
        ),
        ("{device: llama.cpp, device_kind: H100}", "device_kind: expected none on device llama.cpp"),
        ("device: transformers", "device: expected cpu, cuda, cuda:N or llama.cpp, got transformers"),
        (
            "profile: {quantization: Q8_0}",
            "profile.quantization: expected null, as only llama.cpp has one, got Q8_0 on device cpu",
        ),
        (
            "{device: llama.cpp, profile: {quantization: Q4_0}}",
            "profile.quantization: expected 'F32', 'F16', 'BF16' or 'Q8_0', got 'Q4_0'",
        ),
        ("objectives: [throughput_tokens_per_s]", "set profile.largest_batch"),
        ("objectives: [loss, recall_accuracy]", "add recall to tasks.names"),
        ("fidelity: {width_scale: 1.5}", r"fidelity\.width_scale: expected at most 1, got 1\.5"),
        (
            "fidelity: {rungs: [20000, 10000]}",
            "rungs: expected increasing numbers of tokens, got 20000, 10000",
        ),
        (
            "fidelity: {rungs: [100]}",
            "expected tokens that grow by at least a batch of 512 and stay below "
            "proxy.tokens, 150000; got 100",
        ),
        ("fidelity: {rungs: [150000]}", "stay below proxy.tokens, 150000; got 150000"),
        ("fidelity: {rungs: [5200, 5300]}", "grow by at least a batch of 512"),
        ("fidelity: {rungs: [10000], eta: 1}", "fidelity.eta: expected at least 2, got 1"),
        (
            "{fidelity: {rungs: [10000]}, objectives: [params, decode_ms@b1]}",
            "the loss, .* among the objectives; got params, decode_ms@b1",
        ),
        (
            "{fidelity: {rungs: [10000]}, tasks: {names: [recall]}, constraints: ['recall_accuracy >= 0.5']}",
            "expected metrics that are known before training, besides the loss; got recall_accuracy",
        ),
        (
            "gates: {table: true}",
            "expected a constraint on a metric that the latency table predicts: "
            "decode_ms, decode_tokens_per_s, prefill_ms",
        ),
        ("gates: {audit: 2}", "gates.audit: expected at most 1, got 2"),
        (
            "objectives: [loss@t20000]",
            "metric 'loss@t20000' does not depend on the batch size: expected loss",
        ),
        ("device_kind: [H100, H100]", "device_kind: expected each kind once, got H100, H100"),
        ("device_kind: [H100, A100, L4]", "workers: expected at least 3, one for each device_kind, got 2"),
        (
            "device_kind: [H100, A100]",
            "'decode_ms@b1' is measured on each device_kind: expected one of decode_ms@b1/H100,",
        ),
        (
            "objectives: [loss, decode_ms@b1/H100]",
            "does not depend on the kind of device in this run: expected decode_ms@b1",
        ),
        ("device_kind: [H100, 'a b']", r"device_kind\.1: expected text like the pattern .*, got 'a b'$"),
        (
            "{device_kind: [H100, A100], gates: {table: true}, objectives: [loss], "
            "constraints: ['decode_ms@b1/A100 <= 3']}",
            "gates.table: expected one device_kind, that of the latency table, got H100, A100",
        ),
        ("space: {operators: [atention]}", "unknown operator 'atention'"),
        ("space: {operators: [swiglu]}", "at least one mixer"),
        ("proxy: {weight_normalization: true}", "expected space.normalized_head: true with it"),
        ("[1, 2", "not YAML: line 1, column 6: while parsing a flow sequence"),
        ("- a list", r"expected a mapping of keys to values, got \['a list'\]$"),
        ('constraints: "params <= 1e6"', "constraints: expected a list, got 'params <= 1e6'"),
        (
            "a: !!python/object/apply:os.system [true]",
            "line 1, column 4: tag 'python/object/apply:os.system' is not one of",
        ),
        ("seed: 1\nseed: 2", "not YAML: line 2, column 1: key 'seed' is given twice$"),
        ("[" * 1000, "not YAML that can be read: nested too deeply$"),
        ("seed: " + "9" * 5000, "not YAML: Exceeds the limit .* value has 5000 digits"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, text, says):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        config_module.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        config_module.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config_module.load(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("settings", "at_once"),
    [
        ({"device": "cuda", "workers": 3}, 6),
        ({"device": "cuda", "workers": 3, "per_gpu": 1}, 3),
        ({"device": "cuda", "workers": 3, "device_kind": "H100"}, 3),
        ({"device": "cuda:0", "workers": 3}, 3),
        ({"device": "cpu", "workers": 3}, 3),
    ],
)
def test_evaluations_share_gpus_that_workers_have_to_themselves(
    settings: dict[str, object], at_once: int
) -> None:
    assert config_module.RunConfig.model_validate(settings).at_once == at_once


def test_candidates_that_see_share_gpus_too() -> None:
    assert config_module.load(Path("shakti_h100"), ["workers=2", "per_gpu=3"]).at_once == 6


@pytest.mark.parametrize(
    ("wanted", "bounds", "said", "brief"),
    [
        (["loss", "decode_ms@b1"], [], None, True),
        (["loss", "prefill_ms@b1"], [], None, False),
        (["loss", "decode_ms@b1"], ["prefill_ms@b8 <= 3"], None, False),
        (["loss", "decode_ms@b1"], [], False, False),
        (["loss", "prefill_ms@b1"], [], True, True),
        (["loss", "words"], [], None, False),  # of another package, which may use any other metric
    ],
)
def test_prefill_is_brief_where_nothing_depends_on_it(monkeypatch, wanted, bounds, said, brief) -> None:
    monkeypatch.setattr(objectives, "of_others", lambda: {"words": None})
    monkeypatch.setattr(config_module, "of_others", objectives.of_others)
    other = CandidateMetric(compute=lambda architecture, metrics: 0.0)
    monkeypatch.setattr(objectives.plugins, "load", lambda entry, kind: other)
    config = config_module.parse(
        {"objectives": wanted, "constraints": bounds, "profile": {"brief_prefill": said}}, where="run"
    )
    assert config.measured.brief_prefill is brief
    assert config.profile.brief_prefill is said
    assert config.measured.model_copy(update={"brief_prefill": said}) == config.profile
