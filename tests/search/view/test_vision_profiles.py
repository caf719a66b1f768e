"""`profile` of a model that sees: its name is found, its table has the parts of the first token."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from operators import Architecture, VisionLanguage
from operators.base.errors import ArchitectureError, ConfigError
from profiler.process.worker import ProfilingWorker
from search.config.run import parse
from search.runs.sources import architecture_of, model_of
from search.view.profiles import print_profiles, profile_each
from tests.helpers import quick_profile
from tests.helpers.vision_models import vision_language
from tests.helpers.vision_profiles import made_up

LANGUAGE = Architecture.from_shorthand("a f", width=32, vocabulary=64)


def test_the_table_has_the_parts_of_the_first_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProfilingWorker, "profile", made_up)
    settings = quick_profile.QUICK.model_copy(update={"batch_sizes": (2,), "contexts": (32,), "images": 3})
    models = [("sees", vision_language()), ("reads", LANGUAGE)]
    profiles = profile_each(models, settings, device="cpu", backend="auto")
    text = io.StringIO()
    print_profiles(Console(file=text, width=200), profiles)
    (row,) = [line for line in text.getvalue().splitlines() if "20.25" in line]
    assert row.split()[:7] == ["sees", "2", "32", "12", "1.5", "20.25", "2.5"]
    assert "99.5" in row
    assert row.split()[-1] == "263.7"  # 6 images in 22.75 ms
    only = io.StringIO()
    print_profiles(Console(file=only, width=200), profiles[1:])
    assert "first token" not in only.getvalue()


def test_a_model_that_sees_is_a_file_a_folder_or_a_name(tmp_path: Path) -> None:
    file = tmp_path / "sees.yaml"
    file.write_text(vision_language().to_yaml())
    assert model_of(str(file), tmp_path) == (str(file), vision_language())
    assert model_of("nanovlm-222m", tmp_path) == ("nanovlm-222m", VisionLanguage.load("nanovlm-222m"))
    assert model_of("tiny-hybrid", tmp_path) == architecture_of("tiny-hybrid", tmp_path)
    with pytest.raises(ArchitectureError, match="a vision-language model, expected a language model"):
        architecture_of("nanovlm-222m", tmp_path)
    published = tmp_path / "published"
    published.mkdir()
    config = {
        "model_type": "smolvlm",
        "scale_factor": 2,
        "image_token_id": 7,
        "vision_config": {"image_size": 16, "patch_size": 4, "hidden_size": 24, "num_attention_heads": 3},
        "text_config": {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 1},
    }
    text = {"intermediate_size": 48, "num_attention_heads": 4}
    config["text_config"] |= text
    (published / "config.json").write_text(json.dumps(config))
    title, value = model_of(str(published), tmp_path)
    assert title == str(published)
    assert isinstance(value, VisionLanguage)
    assert (value.image_tokens, value.tower.depth, value.language.width) == (4, 12, 32)


def test_a_run_of_language_models_has_no_images() -> None:
    with pytest.raises(ConfigError, match=r"profile\.images: expected 0 without a section vision"):
        parse({"profile": {"images": 1}}, where="x.yaml")
