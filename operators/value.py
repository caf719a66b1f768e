"""The base of every value that people write down: frozen, and unknown keys are refused with the keys that exist."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Value(BaseModel):
    """A frozen pydantic model whose complaint about an unknown key names the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = [str(key) for key in data if key not in cls.model_fields]
            if unknown:
                plural = "s" if len(unknown) > 1 else ""
                raise ValueError(
                    f"unknown key{plural} {', '.join(unknown)}: expected {', '.join(cls.model_fields) or 'none'}"
                )
        return data
