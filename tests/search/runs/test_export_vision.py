"""Models that see as folders: our own, and an LFM2-VL that transformers loads and answers with equally."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from operators import Architecture, VisionLanguage, VisionLanguageModel
from operators.base.errors import ArchitectureError, DataError, RunError
from search.runs.export import load
from search.runs.export_huggingface import export_huggingface
from search.runs.exportable import Exportable, exportable
from search.runs.importing import import_model
from tests.helpers.tokenizers import merged
from tests.helpers.vision_models import drawn

PLACEHOLDER = 280  # the tokenizer has fewer tokens
TOWER = {"image_size": 16, "patch_size": 4, "width": 24, "depth": 2, "heads": 3, "hidden": 40}


def value(
    shorthand: str = "a f a f", *, tower: dict[str, Any] | None = None, **changes: Any
) -> VisionLanguage:
    fields = {"width": 32, "vocabulary": 300, **changes.pop("language", {})}
    language = Architecture.from_shorthand(shorthand, genes={"attention": {"head_dim": 8}}, **fields)
    given = {"projector": {"pixel_shuffle": 2, "hidden": [44]}, "image_token": PLACEHOLDER, **changes}
    return VisionLanguage.parse(
        {"tower": {**TOWER, **(tower or {})}, "language": language, **given}, where=""
    )


def own_folder(value: VisionLanguage, to: Path) -> VisionLanguageModel:
    """Writes what `export` writes, and returns the model."""
    torch.manual_seed(0)
    model = VisionLanguageModel(value, backend="reference").eval()
    drawn(model.tower)
    to.mkdir()
    (to / "architecture.yaml").write_text(value.to_yaml())
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, to / "model.safetensors"
    )
    merged().save(str(to / "tokenizer.json"))
    images = {"image_size": 48, "resize": "pad"}
    (to / "provenance.json").write_text(json.dumps({"config": {"vision": {"images": images}}}))
    return model


def seeing(folder: Path) -> Exportable:
    return exportable(str(folder), None, folder.parent, seeing=True)


def patches(image: torch.Tensor) -> dict[str, torch.Tensor]:
    """An image [3, 16, 16] as the class takes it."""
    split = image.reshape(3, 4, 4, 4, 4).permute(1, 3, 2, 4, 0).reshape(1, 16, 48)
    return {
        "pixel_values": split,
        "pixel_attention_mask": torch.ones(1, 16, dtype=torch.int64),
        "spatial_shapes": torch.tensor([[4, 4]]),
    }


@torch.no_grad()
@pytest.mark.parametrize(
    "member",
    [
        value(),
        value("a f", projector={"pixel_shuffle": 4, "hidden": [20], "norm": True, "bias": False}),
        value("c f", projector={"pixel_shuffle": 1, "hidden": [32]}, tower={"position_grid": 5}),
        value("a f", language={"normalized_head": True, "tied_embeddings": True}),
        value("m a f"),
        value("g f"),
    ],
    ids=["llama", "norm-no-bias", "lfm2-positions", "normalized-head", "granitemoehybrid", "qwen3_5_text"],
)
def test_transformers_answers_as_we_do(member: VisionLanguage, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = own_folder(member, tmp_path / "own")
    export_huggingface(seeing(tmp_path / "own"), tmp_path / "hf")
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "hf").eval()
    assert type(theirs).__name__ == "Lfm2VlForConditionalGeneration"
    image = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))
    prompt = [1, *[PLACEHOLDER] * member.image_tokens, 2, 3]
    expected = theirs(input_ids=torch.tensor([prompt]), **patches(image)).logits
    assert expected.std() > 0.3, "logits too small for the tolerance to mean anything"
    torch.testing.assert_close(ours(torch.tensor([prompt]), image[None]), expected, rtol=0, atol=1e-4)
    written = theirs.generate(
        input_ids=torch.tensor([prompt]),
        **patches(image),
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=None,
    )
    assert ours.generate(prompt, 5, images=image[None]) == written[0].tolist()

    back = import_model(tmp_path / "hf", tmp_path / "back").architecture
    assert isinstance(back, VisionLanguage)
    assert (back.tower, back.projector, back.image_token) == (member.tower, member.projector, PLACEHOLDER)
    read, _ = load(tmp_path / "back")
    assert isinstance(read, VisionLanguageModel)
    torch.testing.assert_close(read(torch.tensor([prompt]), image[None]), expected, rtol=0, atol=1e-4)


def test_the_tokenizer_finds_the_placeholder_in_a_text(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    own_folder(value(), tmp_path / "own")
    remarks = export_huggingface(seeing(tmp_path / "own"), tmp_path / "hf")
    assert "squares of 16×16 pixels (resize pad)" in remarks[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    plain = merged().encode("the people").ids
    assert tokenizer("<image><image>the people").input_ids == [PLACEHOLDER, PLACEHOLDER, *plain]
    assert (tokenizer.image_token, tokenizer.image_token_id) == ("<image>", PLACEHOLDER)
    made = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert (made["min_image_tokens"], made["max_image_tokens"], made["do_image_splitting"]) == (4, 4, False)


def test_a_placeholder_that_is_a_word_of_the_tokenizer_is_one_no_more(tmp_path: Path) -> None:
    """Searches take the last id of the vocabulary, which may be a word."""
    transformers = pytest.importorskip("transformers")
    words = Tokenizer(BPE())
    words.pre_tokenizer, words.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=270, initial_alphabet=ByteLevel.alphabet(), special_tokens=["</s>"], show_progress=False
    )
    words.train_from_iterator(["the people of the united states and the people"] * 9, trainer)
    last = words.get_vocab_size() - 1
    word = words.decode([last]).strip()
    assert words.encode(f"the {word}").ids[-1] == last
    own_folder(value(language={"vocabulary": last + 1}, image_token=last), tmp_path / "own")
    words.save(str(tmp_path / "own" / "tokenizer.json"))
    export_huggingface(seeing(tmp_path / "own"), tmp_path / "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    ids = tokenizer(f"<image>the {word}").input_ids
    assert ids.count(last) == 1, "the word is written with other tokens"
    assert ids[0] == last
    assert tokenizer.decode(ids[1:]) == f"the {word}"
    assert len(tokenizer) == last + 1


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (
            value(tower={"feedforward": "swiglu", "qk_norm": "head"}),
            "no tower.feedforward swiglu; no tower.qk_norm",
        ),
        (value(tower={"rope_theta": 100, "width": 48}), "no tower.rope_theta 100.0"),
        (value(tower={"position_bias": False}), "no tower.position_bias False"),
        (
            value(tower={"norms": [{}, {"norm": "rmsnorm", "norm_position": "after"}]}),
            "no tower.norms but LayerNorm before, of 1 blocks",
        ),
        (value(projector={"pixel_shuffle": 2}), "no projector.hidden 0"),
        (value("m"), "lfm2_vl: language: expected no mamba2, whose states it drops"),
        (value(language={"meta_tokens": 2}), "holds no meta_tokens before an image"),
        (value("d f"), "layer 0: no class of transformers has deltanet"),
    ],
)
def test_what_the_class_does_not_have_is_named_and_nothing_is_written(
    member: VisionLanguage, says: str, tmp_path: Path
) -> None:
    own_folder(member, tmp_path / "own")
    with pytest.raises(ArchitectureError) as refused:
        export_huggingface(seeing(tmp_path / "own"), tmp_path / "hf")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "hf").exists()


def test_what_wants_a_language_model_refuses_one_that_sees(tmp_path: Path) -> None:
    own_folder(value(), tmp_path / "own")
    with pytest.raises(RunError, match="own: a model that sees, expected a language model"):
        exportable(str(tmp_path / "own"), None, tmp_path)


def test_a_tokenizer_with_another_image_token_is_refused(tmp_path: Path) -> None:
    own_folder(value(), tmp_path / "own")
    content = json.loads((tmp_path / "own" / "tokenizer.json").read_text())
    content["model"]["vocab"]["<image>"] = len(content["model"]["vocab"])
    (tmp_path / "own" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="the tokenizer has <image>, expected none besides id 280"):
        export_huggingface(seeing(tmp_path / "own"), tmp_path / "hf")


def test_a_damaged_folder_of_weights_is_one_line(tmp_path: Path) -> None:
    own_folder(value(), tmp_path / "own")
    (tmp_path / "own" / "architecture.yaml").write_text(value(tower={"width": 48}).to_yaml())
    with pytest.raises(RunError, match=r"weight projector\.matrices\.0\.weight: expected shape"):
        load(tmp_path / "own")
