"""The configuration of an exported model for `transformers`."""

from typing import Any

from transformers import PretrainedConfig


class FrontrunnerConfig(PretrainedConfig):
    """architecture: the whole model as a plain mapping."""

    model_type = "frontrunner"
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(self, architecture: dict[str, Any] | None = None, **rest: Any) -> None:
        self.architecture = architecture or {}
        self.vocab_size = self.architecture.get("vocabulary", 0)
        self.hidden_size = self.architecture.get("width", 0)
        self.num_hidden_layers = len(self.architecture.get("layers", ()))
        # A tied head is the embedding itself: there is no second tensor that would have to be tied.
        super().__init__(**{**rest, "tie_word_embeddings": False})
