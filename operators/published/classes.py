"""Checks that the classes that a config.json names are the ones of its family in `transformers`."""

from operators.published.own_code import OWN
from operators.published.settings import Settings

CLASSES = {
    "llama": "Llama",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "mamba2": "Mamba2",
    "nemotron_h": "NemotronH",
    "olmo_hybrid": "OlmoHybrid",
    "arcee": "Arcee",
    "granitemoehybrid": "GraniteMoeHybrid",
    "qwen3_5_text": "Qwen3_5",
    "qwen3_next": "Qwen3Next",
    "lfm2": "Lfm2",
    "kimi_linear": "KimiLinear",
    OWN: "Frontrunner",
}
"""The beginning of the names of a family's classes in `transformers`."""


def check_classes(config: Settings, family: str) -> None:
    """Refuses a model that is not the family's language model, as a classifier or a model with its own code.

    config: of the model.
    family: its model_type.

    Raises ArchitectureError.
    """
    stem = CLASSES[family]
    known = {f"{stem}{kind}".lower() for kind in ("ForCausalLM", "Model", "TextModel")}
    for name in config.names("architectures") or ():
        if name.lower() not in known:  # in small letters, as the first Llamas name LLaMAForCausalLM
            raise config.error("architectures", f"{stem}ForCausalLM or {stem}Model", name)
    own_code = config.mapping("auto_map")
    for key in ("AutoModel", "AutoModelForCausalLM"):
        path = own_code.get(key, null=True, default=stem + "Model")
        if not isinstance(path, str) or path.rpartition(".")[2].lower() not in known:
            raise own_code.error(key, f"{stem}ForCausalLM or {stem}Model", path)
