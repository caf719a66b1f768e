"""The classes that a config.json names, and those of a family in `transformers`."""

from operators.published.settings import Settings

CLASSES = {
    "llama": "Llama",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "mamba2": "Mamba2",
    "nemotron_h": "NemotronH",
    "olmo_hybrid": "OlmoHybrid",
}
"""What the classes of a family in `transformers` begin with."""


def check_classes(config: Settings, family: str) -> None:
    """Refuses another model than the language model of the family: a classifier, or code of its own under another name."""
    stem = CLASSES[family]
    known = {f"{stem}ForCausalLM".lower(), f"{stem}Model".lower()}
    for name in config.names("architectures") or ():
        if name.lower() not in known:  # the first Llamas say LLaMAForCausalLM
            raise config.error("architectures", f"{stem}ForCausalLM or {stem}Model", name)
    own_code = config.mapping("auto_map")
    for key in ("AutoModel", "AutoModelForCausalLM"):
        path = own_code.get(key, null=True, default=stem + "Model")
        if not isinstance(path, str) or path.rpartition(".")[2].lower() not in known:
            raise own_code.error(key, f"{stem}ForCausalLM or {stem}Model", path)
