"""The configuration of a quick search for models that see."""

from pathlib import Path
from typing import Any

from search.config.run import RunConfig


def config_of(tiny: RunConfig, images: Path | str, **changes: Any) -> dict[str, Any]:
    data = tiny.model_dump(mode="json")
    vision = {
        "images": {"source": str(images), "image_size": 8},
        "stages": {"align_examples": 16, "tune_examples": 32, "batch_size": 8, "validation_examples": 8},
        "space": {"image_sizes": [8], "patch_sizes": [2, 4], "widths": [16, 32], "head_dims": [16]},
    }
    return {
        **data,
        "candidates": 3,
        "objectives": ["answer_loss", "ttft_ms@b1"],
        "profile": {**data["profile"], "images": 1},
        "searcher": {"name": "evolution"},
        "evolution": {"population": 2},
        "vision": vision,
        **changes,
    }
