"""Reads many models that were written to a ledger, which are made of a few layers.

To validate a layer takes longer than all else, and a search repeats a few layers thousands of times.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from pydantic_core import from_json

from operators.architecture import MAX_DEPTH, Architecture, Layer
from operators.vision.vision_language import Model, parse_model

# What a model has besides: its name may be any text, and its layers are looked up one by one.
_APART = ("name", "layers")


class WrittenModel:
    """A model of a ledger that is made when it is first asked for.

    A reader compares thousands by their scores and looks at a few, and to make one needs torch.

    text: the model as JSON.
    shorthand: of its layers, as it was when the model was written.
    loads_in: where it loads, see `search.runs.loads_in`; None where that is not known.
    read: makes the model of its text.
    """

    def __init__(
        self, text: str, shorthand: str, loads_in: str | None, *, read: Callable[[str], Model]
    ) -> None:
        self.text, self.shorthand, self.loads_in, self._read = text, shorthand, loads_in, read

    @cached_property
    def model(self) -> Model:
        """Raises RunError where the ledger is damaged."""
        return self._read(self.text)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and depth. Raises RunError where the ledger is damaged."""
        try:
            plain = from_json(self.text)
            return plain["width"], len(plain["layers"])
        except (ValueError, KeyError, TypeError):
            # One that sees has its layers further in, and what is torn is refused with the model.
            return self.model.width, self.model.depth

    def __eq__(self, other: object) -> bool:
        if isinstance(other, WrittenModel):
            return self.text == other.text
        return self.model == other

    __hash__ = None  # type: ignore[assignment]  # as of anything that is compared by its content


class WrittenModels:
    """Validates each layer where it first occurs, and takes it as it is where the rest is the same."""

    def __init__(self) -> None:
        # What is written around the layers -> a model of that, and its layers by how they are written.
        self._known: dict[str, tuple[Architecture, dict[str, Layer]]] = {}

    def read(self, written: Any) -> Model:
        """The model. Raises ArchitectureError."""
        if not isinstance(written, dict) or not isinstance(written.get("layers"), list):
            return parse_model(written, where="architecture")
        around = repr([(key, value) for key, value in written.items() if key not in _APART])
        texts = list(map(repr, written["layers"]))
        if around in self._known and isinstance(written.get("name", ""), str):
            first, known = self._known[around]
            layers = tuple(known[text] for text in texts if text in known)
            if 0 < len(texts) == len(layers) <= MAX_DEPTH:
                return first.model_copy(update={"name": written.get("name", ""), "layers": layers})
        model = parse_model(written, where="architecture")
        if isinstance(model, Architecture) and len(model.layers) == len(texts):
            known = self._known.get(around, (model, dict[str, Layer]()))[1]
            known |= zip(texts, model.layers, strict=True)
            self._known[around] = model, known
            return model.model_copy(update={"layers": tuple(known[text] for text in texts)})
        return model
