"""The families that can be imported: config.json of `transformers` -> an architecture, and the tensors of each of its parameters."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operators.architecture import MAX_DEPTH, Architecture
from operators.base.errors import ArchitectureError
from operators.published.classes import check_classes
from operators.published.keys import FAMILY_NEUTRAL, FAMILY_WITHOUT_EFFECT, NEUTRAL, WITHOUT_EFFECT
from operators.published.rotation import rope
from operators.published.settings import Settings

# Our parameter -> the published tensors which, one under the other along the first dimension, are it.
Names = dict[str, tuple[str, ...]]

SWIGLU = ("gate_proj.weight", "up_proj.weight", "down_proj.weight")
ATTENTION = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")
QK_NORM = ("q_norm.weight", "k_norm.weight")
QKV_BIAS = ("q_proj.bias", "k_proj.bias", "v_proj.bias")
MAMBA2 = ("in_proj.weight", "A_log", "dt_bias", "D", "norm.weight", "out_proj.weight")
GATED_DELTANET = (
    *ATTENTION,
    "a_proj.weight",
    "b_proj.weight",
    "g_proj.weight",
    "A_log",
    "dt_bias",
    "o_norm.weight",
)
NO_LIMIT = [0.0, float("inf")]
SILU = ("silu", "swish")


@dataclass(frozen=True)
class Published:
    """A published model in our terms.

    renames: (old, new) spellings in its tensors' names, in that order; `names` uses the new ones.
    shortest_step: to which `transformers` raises the steps of Mamba2 layers when it reads a prompt, though not when it generates.
    """

    architecture: Architecture
    names: Mapping[str, tuple[str, ...]]
    renames: Sequence[tuple[str, str]] = ()
    shortest_step: float = 0.0


def describe(config: Mapping[str, Any], *, name: str = "", where: str = "config.json") -> Published:
    """What a config.json describes.

    Raises ArchitectureError, one line that begins with `where`, for what we cannot express and for every key that is neither mapped
    nor known to change nothing.
    """
    settings = Settings(config, where=where)
    family = settings.get("model_type", null=True)
    if not isinstance(family, str) or family not in FAMILIES:
        raise settings.error("model_type", f"one of {', '.join(FAMILIES)}", family)
    if settings.get("quantization_config", null=True) is not None:
        raise ArchitectureError(f"{where}: quantization_config: expected weights that are not quantized")
    check_classes(settings, family)
    fields, layers, names, renames = FAMILIES[family](settings)
    tied = settings.flag("tie_word_embeddings")
    if tied:
        del names["head.weight"]
    fields |= {"name": name, "vocabulary": settings.size("vocab_size"), "width": settings.size("hidden_size")}
    # transformers raises steps to this in this family alone.
    shortest_step = _shortest_step(settings) if family == "nemotron_h" else 0.0
    settings.without_effect(WITHOUT_EFFECT | FAMILY_WITHOUT_EFFECT[family])
    settings.refuse_unread(family, NEUTRAL | FAMILY_NEUTRAL.get(family, {}))
    architecture = Architecture.parse({**fields, "layers": layers, "tied_embeddings": tied}, where=where)
    return Published(architecture, names, renames, shortest_step)


def _shortest_step(config: Settings) -> float:
    value = config.get("time_step_min", "mamba_dt_min", default=0.001)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise config.error("time_step_min", "a number from 0", value)
    return float(value)


def layer_names(ours: int, theirs: str, inside: Iterable[str], norm: str) -> Names:
    """Names of one of our layers: its operator's parameters under `theirs`, its normalization as `norm`."""
    operator = {f"layers.{ours}.operator.{name}": (f"{theirs}.{name}",) for name in inside}
    return {f"layers.{ours}.norm.weight": (norm,), **operator}


def outside_names(embedding: str, norm: str) -> Names:
    """Names of what surrounds the layers, the head untied."""
    return {"embedding.weight": (embedding,), "norm.weight": (norm,), "head.weight": ("lm_head.weight",)}


Family = tuple[dict[str, Any], list[dict[str, Any]], Names, Sequence[tuple[str, str]]]


def _llama(config: Settings) -> Family:
    width, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if width % heads:
        raise config.error("hidden_size", f"a multiple of num_attention_heads, {heads}", width)
    for kind in config.names("layer_types") or ():
        if kind != "full_attention":
            raise config.error("layer_types", "full_attention", kind)
    config.only("attention_bias", False)
    config.only("mlp_bias", False)
    return _transformer(config)


def _qwen2(config: Settings) -> Family:
    return _transformer(config, shape={"qkv_bias": True}, inside=QKV_BIAS, windows=_windows(config))


def _qwen3(config: Settings) -> Family:
    config.only("attention_bias", False)
    return _transformer(
        config, shape={"qk_norm": "head"}, inside=QK_NORM, windows=_windows(config), head_dim=128
    )


def _transformer(
    config: Settings,
    *,
    shape: Mapping[str, Any] | None = None,
    inside: tuple[str, ...] = (),
    windows: Sequence[int | None] | None = None,
    head_dim: int | None = None,
) -> Family:
    """Blocks of attention and SwiGLU. shape, inside: what the family's attention has besides. windows: by block. head_dim: its default."""
    config.only("hidden_act", *SILU)
    feedforward = {"operator": "swiglu", "shape": {"hidden": config.size("intermediate_size")}}
    names, layers = outside_names("model.embed_tokens.weight", "model.norm.weight"), []
    for block in range(config.size("num_hidden_layers", most=MAX_DEPTH)):
        window = windows[block] if windows else None
        layers += [_attention(config, head_dim=head_dim, window=window, **shape or {}), feedforward]
        layer = f"model.layers.{block}"
        names |= layer_names(
            2 * block, f"{layer}.self_attn", ATTENTION + inside, f"{layer}.input_layernorm.weight"
        )
        names |= layer_names(
            2 * block + 1, f"{layer}.mlp", SWIGLU, f"{layer}.post_attention_layernorm.weight"
        )
    return {"rope": rope(config), "norm_eps": config.real("rms_norm_eps", default=1e-6)}, layers, names, ()


def _attention(
    config: Settings, *, head_dim: int | None = None, called: Sequence[str] = ("head_dim",), **shape: Any
) -> dict[str, Any]:
    """A layer of attention. head_dim: the family's default, or None for the width by the heads. called: how it calls that."""
    heads = config.size("num_attention_heads")
    size = config.size(
        *called,
        default=head_dim or config.size("hidden_size") // heads,
        null=head_dim is None,
    )
    kv_heads = config.size("num_key_value_heads", default=heads, null=True)
    return {
        "operator": "attention",
        "shape": {"heads": heads, "kv_heads": kv_heads, "head_dim": size, **shape},
    }


def _windows(config: Settings) -> list[int | None]:
    """The window of every block, as Qwen2 and Qwen3 write it: by `layer_types`, or from block `max_window_layers` on."""
    blocks, slides = config.size("num_hidden_layers", most=MAX_DEPTH), config.flag("use_sliding_window")
    config.without_effect(("sliding_window", "max_window_layers"))  # where nothing slides
    window = config.size("sliding_window", default=4096, null=True) if slides else None
    if slides and "sliding_window" in config.values and config.values["sliding_window"] is None:
        window = None
    kinds = config.names("layer_types")
    if kinds is None:
        full = blocks if window is None else config.size("max_window_layers", default=28, least=0)
        kinds = ["full_attention" if block < full else "sliding_attention" for block in range(blocks)]
    if len(kinds) != blocks:
        raise config.error("layer_types", f"{blocks} entries, as num_hidden_layers says", kinds)
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise config.error("layer_types", "full_attention or sliding_attention", kind)
    if "sliding_attention" in kinds and not slides:
        raise config.error("use_sliding_window", "true where layer_types has sliding_attention", False)
    if "sliding_attention" in kinds and window is None:
        raise config.error("sliding_window", "a size where layer_types has sliding_attention", None)
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _mamba2(config: Settings) -> Family:
    config.only("hidden_act", "silu")
    config.only("use_bias", False)
    layer = _mamba2_layer(config, heads="num_heads", head_dim="head_dim", state="state_size")
    inner, expanded = layer["shape"]["heads"] * layer["shape"]["head_dim"], config.size("expand", default=2)
    if inner != expanded * config.size("hidden_size"):
        raise config.error("expand", f"num_heads x head_dim, {inner}, to be expand x hidden_size", expanded)
    blocks = config.size("num_hidden_layers", most=MAX_DEPTH)
    names = outside_names("backbone.embeddings.weight", "backbone.norm_f.weight")
    for block in range(blocks):
        names |= _mamba2_names(block, f"backbone.layers.{block}")
    return (
        {"rope": None, "norm_eps": config.real("layer_norm_epsilon", default=1e-5)},
        [layer] * blocks,
        names,
        (),
    )


def _mamba2_layer(
    config: Settings, *, heads: str, head_dim: str, state: str, older: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A Mamba2 layer. heads, head_dim, state: the family's names of its sizes. older: names that a setting had before."""
    older = older or {}

    def called(key: str) -> list[str]:
        return [name for name in (key, older.get(key)) if name]

    for key in called("use_conv_bias"):
        config.only(key, True)
    # No smallest or largest step: transformers applies these limits when it reads a prompt, but not when it decodes.
    limit = config.get(*called("time_step_limit"), default=NO_LIMIT)
    if not isinstance(limit, list | tuple) or [_number(value) for value in limit] != NO_LIMIT:
        raise config.error("time_step_limit", "no limit, 0 to infinity", limit)
    shape = {
        "heads": config.size(heads),
        "head_dim": config.size(head_dim),
        "state": config.size(state),
        "groups": config.size(*called("n_groups"), default=8),
        "conv": config.size(*called("conv_kernel"), default=4),
    }
    return {"operator": "mamba2", "shape": shape}


def _number(value: Any) -> Any:
    """transformers writes infinity as {"__float__": "Infinity"}, which JSON does not have."""
    return float("inf") if value == {"__float__": "Infinity"} else value


def _mamba2_names(ours: int, layer: str) -> Names:
    conv = {
        f"layers.{ours}.operator.conv.{name}": (f"{layer}.mixer.conv1d.{name}",)
        for name in ("weight", "bias")
    }
    return layer_names(ours, f"{layer}.mixer", MAMBA2, f"{layer}.norm.weight") | conv


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
    """Our operator of every layer. The list has had two names, and there is an older pattern of letters; they must agree."""
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


def _nemotron_h(config: Settings) -> Family:
    for key in ("attention_bias", "mlp_bias", "use_bias", "mamba_proj_bias"):
        config.only(key, False)
    config.only("mlp_hidden_act", "relu2")
    config.only("mamba_hidden_act", "silu")
    if config.get("sliding_window", null=True) is not None:
        raise config.error("sliding_window", "none", config.get("sliding_window"))
    kinds = _nemotron_h_kinds(config)
    made: dict[str, Callable[[], dict[str, Any]]] = {
        "mamba2": lambda: _mamba2_layer(
            config,
            heads="mamba_num_heads",
            head_dim="mamba_head_dim",
            state="ssm_state_size",
            older=NEMOTRON_H_OLDER,
        ),
        "relu2": lambda: {"operator": "relu2", "shape": {"hidden": config.size("intermediate_size")}},
        "attention": lambda: _attention(config, head_dim=128, called=("head_dim", "attention_head_dim")),
    }
    inside = {"relu2": ("up_proj.weight", "down_proj.weight"), "attention": ATTENTION}
    names, layers = outside_names("model.embeddings.weight", "model.norm_f.weight"), []
    for number, operator in enumerate(kinds):
        layer = f"model.layers.{number}"
        layers.append(made[operator]())
        if operator == "mamba2":
            names |= _mamba2_names(number, layer)
        else:
            names |= layer_names(number, f"{layer}.mixer", inside[operator], f"{layer}.norm.weight")
    eps = config.real("layer_norm_epsilon", default=1e-5)
    return {"rope": None, "norm_eps": eps}, layers, names, (("backbone.", "model."),)


def _olmo_hybrid(config: Settings) -> Family:
    config.only("hidden_act", *SILU)
    config.only("attention_bias", False)
    heads = config.size("num_attention_heads")
    key_heads, value_heads = (
        config.size(f"linear_num_{part}_heads", default=heads, null=True) for part in ("key", "value")
    )
    if key_heads != value_heads:
        raise config.error(
            "linear_num_value_heads", f"{key_heads}, as many as linear_num_key_heads", value_heads
        )
    default_key_dim = int(0.75 * config.size("hidden_size") / key_heads)
    key_dim = config.size("linear_key_head_dim", default=default_key_dim, null=True)
    shape = {
        "heads": key_heads,
        "key_dim": key_dim,
        "value_dim": config.size("linear_value_head_dim", default=2 * key_dim, null=True),
        "conv": config.size("linear_conv_kernel_dim", default=4),
        "negative_eigenvalues": config.flag("linear_allow_neg_eigval", default=True),
    }
    feedforward = {"operator": "swiglu", "shape": {"hidden": config.size("intermediate_size")}}
    blocks = config.size("num_hidden_layers", most=MAX_DEPTH)
    kinds = config.names("layer_types")
    if kinds is None:  # every fourth block and, where there is none, the last
        full = range(3, blocks, 4) or (blocks - 1,)
        kinds = ["full_attention" if block in full else "linear_attention" for block in range(blocks)]
    if len(kinds) != blocks:
        raise config.error("layer_types", f"{blocks} entries, as num_hidden_layers says", kinds)
    names, layers = outside_names("model.embed_tokens.weight", "model.norm.weight"), []
    for block, kind in enumerate(kinds):
        layer, ours = f"model.layers.{block}", 2 * block
        if kind == "linear_attention":
            mixer = f"{layer}.linear_attn"
            layers += [{"operator": "gated_deltanet", "shape": shape}, feedforward]
            names |= layer_names(ours, mixer, GATED_DELTANET, f"{layer}.input_layernorm.weight")
            names[f"layers.{ours}.operator.conv.weight"] = tuple(
                f"{mixer}.{part}_conv1d.weight" for part in "qkv"
            )
            norm = f"{layer}.post_attention_layernorm.weight"
        elif kind == "full_attention":
            layers += [
                {**part, "norm_position": "after"}
                for part in (_attention(config, qk_norm="full"), feedforward)
            ]
            names |= layer_names(
                ours, f"{layer}.self_attn", ATTENTION + QK_NORM, f"{layer}.post_attention_layernorm.weight"
            )
            norm = f"{layer}.post_feedforward_layernorm.weight"
        else:
            raise config.error(f"layer_types.{block}", "linear_attention or full_attention", kind)
        names |= layer_names(ours + 1, f"{layer}.mlp", SWIGLU, norm)
    renames = (
        ("attention_layer_norm", "input_layernorm"),
        ("feedforward_layer_norm", "post_attention_layernorm"),
    )
    fields = {
        "rope": rope(config, may_be_off=True),
        "norm_eps": config.real("rms_norm_eps", default=1e-6),
    }
    return fields, layers, names, renames


FAMILIES: dict[str, Callable[[Settings], Family]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "mamba2": _mamba2,
    "nemotron_h": _nemotron_h,
    "olmo_hybrid": _olmo_hybrid,
}
