"""Adapters of the families with Mamba2 layers: Mamba2 and Nemotron-H."""

from collections.abc import Callable, Mapping
from typing import Any

from operators.architecture import MAX_DEPTH, Architecture
from operators.library.mamba2 import Mamba2Shape
from operators.published.forms import Form
from operators.published.padding import PADDING
from operators.published.settings import Settings
from operators.published.shapes import CHUNK, SMALL_ATTENTION, SMALL_HIDDEN, expand_of, shape_of
from operators.published.tensor_names import (
    ATTENTION,
    RELU2,
    Family,
    layer_names,
    mamba2_names,
    outside_names,
)
from operators.published.transformer_families import attention_layer

NO_LIMIT = [0.0, float("inf")]  # the shortest and the longest step of a Mamba2 layer


def mamba2(config: Settings) -> Family:
    """Mamba2 and Codestral Mamba: Mamba2 layers alone. Raises ArchitectureError."""
    config.only("hidden_act", "silu")
    config.only("use_bias", False)
    layer = mamba2_layer(config, heads="num_heads", head_dim="head_dim", state="state_size")
    inner, expanded = layer["shape"]["heads"] * layer["shape"]["head_dim"], config.size("expand", default=2)
    if inner != expanded * config.size("hidden_size"):
        raise config.error("expand", f"num_heads x head_dim, {inner}, to be expand x hidden_size", expanded)
    blocks = config.size("num_hidden_layers", most=MAX_DEPTH)
    names = outside_names("backbone.embeddings.weight", "backbone.norm_f.weight")
    forms: dict[str, Form] = {}
    for block in range(blocks):
        theirs = f"backbone.layers.{block}"
        inside, convolution = mamba2_names(block, f"{theirs}.mixer", f"{theirs}.norm.weight")
        names, forms = names | inside, forms | convolution
    fields = {"rope": None, "norm_eps": config.real("layer_norm_epsilon", default=1e-5)}
    return Family(fields, [layer] * blocks, names, forms=forms)


def mamba2_config(architecture: Architecture) -> dict[str, Any]:
    """The way back: Mamba2 layers alone."""
    shape = shape_of(architecture, "mamba2") or Mamba2Shape.make(architecture.width)
    return {
        "num_hidden_layers": len(architecture.layers),
        "layer_norm_epsilon": architecture.norm_eps,
        "num_heads": shape.heads,
        "head_dim": shape.head_dim,
        "state_size": shape.state,
        "n_groups": shape.groups,
        "conv_kernel": shape.conv,
        "expand": expand_of(architecture, shape),
        "hidden_act": "silu",
        "use_bias": False,
        "use_conv_bias": True,
        "chunk_size": CHUNK,
    }


def mamba2_layer(
    config: Settings,
    *,
    heads: str,
    head_dim: str,
    state: str,
    older: Mapping[str, str] | None = None,
    groups: int = 8,
) -> dict[str, Any]:
    """A Mamba2 layer.

    heads, head_dim, state: the family's keys for these sizes.
    older: other keys of settings, as earlier versions had them.
    groups: the family's default.
    """
    older = older or {}

    def called(key: str) -> list[str]:
        return [name for name in (key, older.get(key)) if name]

    for key in called("use_conv_bias"):
        config.only(key, True)
    # Limits of a step are refused: transformers applies them when it reads a prompt, but not when it decodes.
    limit = config.get(*called("time_step_limit"), default=NO_LIMIT)
    if not isinstance(limit, list | tuple) or [_number(value) for value in limit] != NO_LIMIT:
        raise config.error("time_step_limit", "no limit, 0 to infinity", limit)
    shape = {
        "heads": config.size(heads),
        "head_dim": config.size(head_dim),
        "state": config.size(state),
        "groups": config.size(*called("n_groups"), default=groups),
        "conv": config.size(*called("conv_kernel"), default=4),
    }
    return {"operator": "mamba2", "shape": shape}


def _number(value: Any) -> Any:
    """A number; transformers writes infinity, which JSON lacks, as {"__float__": "Infinity"}."""
    return float("inf") if value == {"__float__": "Infinity"} else value


NEMOTRON_H_KINDS = {
    "M": "mamba2",
    "linear_attention": "mamba2",
    "mamba": "mamba2",
    "-": "relu2",
    "mlp": "relu2",
}
NEMOTRON_H_KINDS |= {"*": "attention", "full_attention": "attention", "attention": "attention"}


NEMOTRON_H_OLDER = {
    "n_groups": "mamba_n_groups",
    "conv_kernel": "mamba_d_conv",
    "use_conv_bias": "mamba_conv_bias",
    "time_step_limit": "mamba_dt_limit",
}


def _nemotron_h_kinds(config: Settings) -> list[str]:
    """Our operator for every layer, by a list (two keys) or an older pattern of letters; all must agree."""
    lists = {}
    for key in ("layers_block_type", "layer_types", "hybrid_override_pattern"):
        kinds = config.get(key, null=True)
        if kinds is None:
            continue
        if not isinstance(kinds, list | str):
            raise config.error(key, "a list of names", kinds)
        operators = [NEMOTRON_H_KINDS.get(str(kind)) for kind in kinds]
        if None in operators:
            number = operators.index(None)
            expected = "linear_attention (M), full_attention (*) or mlp (-)"
            raise config.error(f"{key}.{number}", expected, kinds[number])
        lists[key] = [operator for operator in operators if operator]
    if not lists:
        raise config.error("layers_block_type", "a list of names", None)
    first = next(iter(lists))
    for key in lists:
        if lists[key] != lists[first]:
            raise config.error(key, f"the layers of {first}", config.values[key])
    layers = len(lists[first])
    if config.size("num_hidden_layers", default=layers, least=0) != layers:
        raise config.error(
            "num_hidden_layers", f"{layers}, as {first} says", config.values["num_hidden_layers"]
        )
    return lists[first]


UNUSED_SIZES = (
    *("intermediate_size", "mamba_num_heads", "mamba_head_dim", "ssm_state_size"),
    *NEMOTRON_H_OLDER,
    *NEMOTRON_H_OLDER.values(),
)
"""Sizes that change nothing in a model without layers that have them; where it has some they are read."""


def nemotron_h(config: Settings) -> Family:
    """Nemotron-H: layers of Mamba2, attention and ReLU² in any order. Raises ArchitectureError."""
    for key in ("attention_bias", "mlp_bias", "use_bias", "mamba_proj_bias"):
        config.only(key, False)
    config.only("mlp_hidden_act", "relu2")
    config.only("mamba_hidden_act", "silu")
    if config.get("sliding_window", null=True) is not None:
        raise config.error("sliding_window", "none", config.get("sliding_window"))
    kinds = _nemotron_h_kinds(config)
    config.without_effect(UNUSED_SIZES)
    builders: dict[str, Callable[[], dict[str, Any]]] = {
        "mamba2": lambda: mamba2_layer(
            config,
            heads="mamba_num_heads",
            head_dim="mamba_head_dim",
            state="ssm_state_size",
            older=NEMOTRON_H_OLDER,
        ),
        "relu2": lambda: {"operator": "relu2", "shape": {"hidden": config.size("intermediate_size")}},
        "attention": lambda: attention_layer(config, head_dim=128, called=("head_dim", "attention_head_dim")),
    }
    inside = {"relu2": RELU2, "attention": ATTENTION}
    names, layers = outside_names("model.embeddings.weight", "model.norm_f.weight"), []
    forms: dict[str, Form] = {}
    for number, operator in enumerate(kinds):
        layer, norm = f"model.layers.{number}.mixer", f"model.layers.{number}.norm.weight"
        layers.append(builders[operator]())
        if operator == "mamba2":
            within, convolution = mamba2_names(number, layer, norm)
            names, forms = names | within, forms | convolution
        else:
            names |= layer_names(number, layer, inside[operator], norm)
    fields = {"rope": None, "norm_eps": config.real("layer_norm_epsilon", default=1e-5)}
    return Family(fields, layers, names, (("backbone.", "model."),), forms)


def nemotron_h_config(architecture: Architecture) -> dict[str, Any]:
    """The way back: layers of Mamba2, attention and ReLU² in any order.

    Converters take a model for one of experts unless the layers are a pattern and no key names experts.
    """
    letters = {"mamba2": "M", "relu2": "-", "attention": "*"}
    pattern = "".join(letters[layer.operator] for layer in architecture.layers)
    padding = {}
    if "*" not in pattern:  # without attention transformers cannot generate with a cache
        pattern += "*"
        padding = {PADDING: [len(architecture.layers)]}
    attention = shape_of(architecture, "attention") or SMALL_ATTENTION
    mamba, relu2 = shape_of(architecture, "mamba2"), shape_of(architecture, "relu2")
    sizes = (
        {}
        if mamba is None
        else {
            "mamba_num_heads": mamba.heads,
            "mamba_head_dim": mamba.head_dim,
            "ssm_state_size": mamba.state,
            "n_groups": mamba.groups,
            "conv_kernel": mamba.conv,
            # At 0, transformers takes the logarithm of 0. Any larger step would be raised to it in a prompt.
            "time_step_min": 1e-30,
        }
    )
    return {
        "hybrid_override_pattern": pattern,
        "num_hidden_layers": len(pattern),
        "layer_norm_epsilon": architecture.norm_eps,
        "intermediate_size": relu2.hidden if relu2 else SMALL_HIDDEN,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "mamba_hidden_act": "silu",
        "mlp_hidden_act": "relu2",
        "use_conv_bias": True,
        "chunk_size": CHUNK,
        **sizes,
        **padding,
    }
