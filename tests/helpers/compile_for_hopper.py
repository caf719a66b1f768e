"""Compiles every kernel of ours for a Hopper GPU, which needs none, and prints which ones start early."""

import sys
from typing import Any

from triton import compile as compiled
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from operators.kernels import (
    attention_step,
    choice,
    delta_rule_step,
    linear_attention_step,
    mamba2_step,
    mamba3_step,
    mamba_step,
    multiprocessor_clock,
    products,
    rwkv7_step,
    short_convolution_step,
    squared_relu,
    token_shift,
)

HALF = (
    "x weight out norm_weight norm_bias bias projected conv conv_weight conv_bias "
    "qkv key value q_norm k_norm logits decay_up decay_bias gate_up a_up a_bias k_k k_a r_k before mix "
    "convolved dt_up B_weight C_weight B_bias C_bias"
)
KINDS = {
    **dict.fromkeys(HALF.split(), "*bf16"),
    **dict.fromkeys(["recurrent", "A_log", "D", "dt_bias", "divisor", "frequencies", "values"], "*fp32"),
    **dict.fromkeys(["arrived", "places"], "*i32"),
    **dict.fromkeys(["position", "tokens"], "*i64"),
    **dict.fromkeys(["eps", "scale", "temperature", "strongest", "weakest", "turn"], "fp32"),
}
AFTER = {"PARTS": (40, 1000), "BIAS": True, "DIVIDED": True, "ONTO": True, "EVEN": False, "EARLY": True}
HEADS = {"SIZE": 40, "GROUP": 3, "ROWS": 16, "HALF": 32, "WHOLE": 64}
PARTS = {"BLOCK": 32, "SPLITS": 3, "SPLITS_POWER": 4, "GROUP_POWER": 4, "TOGETHER": 2}


def build(kernel: Any, warps: int, *, kinds: dict[str, str] | None = None, **constants: Any) -> None:
    known = KINDS | (kinds or {}) | dict.fromkeys(constants, "constexpr")
    kinds = {name: known.get(name, "i32") for name in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]] for place, name in enumerate(kinds) if kinds[name].startswith("*")
    }
    source = ASTSource(kernel, kinds, constexprs=constants, attrs=aligned)
    built = compiled(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    print(kernel.__name__, "early" if "griddepcontrol.wait" in built.asm["ptx"] else "late")  # noqa: T201


def main() -> None:
    """Sizes are small: what does not compile shows at any, and large ones take seconds."""
    gated = {"ACTIVATION": "swiglu", **AFTER}
    build(products._one_row, 2, BLOCK_OUT=4, BLOCK_IN=256, FOLD=4, NORM="layernorm", **gated)
    build(products._few_rows, 1, ROWS=8, BLOCK_OUT=16, BLOCK_IN=64, STAGES=3, **gated)
    build(products._normalized, 8, BLOCK=2048, NORM="layernorm", EARLY=True)
    for stages in (2, 3):
        flags = {"STAGES": stages, "NORMED": True, "ROTATED": True, "EARLY": True}
        build(attention_step._attend, 4, kinds={"parts": "*fp32"}, **HEADS, **PARTS, **flags)
    build(mamba2_step._step, 4, SIZE=24, STATE=32, TAPS=4, BLOCK=16, STATE_POWER=32, EARLY=True)
    build(short_convolution_step._step, 4, TAPS=3, GATED=True, BLOCK=128, EARLY=True)
    sizes = {"STATE": 16, "STATE_POWER": 16, "RANK": 12, "RANK_POWER": 16}
    build(mamba_step._step, 4, kinds={"parts": "*bf16"}, BLOCK=32, EARLY=True, **sizes)
    sizes = {"SIZE": 24, "STATE": 32, "ANGLES": 6, "SIZE_POWER": 32, "STATE_POWER": 32, "ANGLES_POWER": 8}
    build(mamba3_step._step, 4, kinds={"angle": "*fp32", "key": "*fp32"}, EARLY=True, **sizes)
    sizes = {"KEY": 24, "VALUE": 32, "TAPS": 3, "KEY_POWER": 32, "HALF": 16}
    ranks = {"RANK": 24, "RANK_POWER": 32}
    for decays in ("head", "channel"):
        build(delta_rule_step._step, 4, DECAYS=decays, NEGATIVE=True, EARLY=True, **sizes, **ranks)
    sizes = {"KEY": 24, "VALUE": 32, "KEY_POWER": 32, "VALUE_POWER": 32, "RANK": 16, "RANK_POWER": 16}
    for rotates in (True, False):
        build(linear_attention_step._step, 4, ROTATES=rotates, EARLY=True, **sizes)
    build(token_shift._mixed, 4, BLOCK=256, WHOLE=2048, MIXTURES=8, LAYERNORM=True, EARLY=True)
    ranks = {"DECAY": 32, "DECAY_POWER": 32, "A": 32, "A_POWER": 32, "GATE": 24, "GATE_POWER": 32}
    build(rwkv7_step._step, 4, SIZE=24, POWER=32, EARLY=True, **ranks)
    build(choice._best_of_part, 4, BLOCK=2048, EARLY=True)
    build(choice._best_of_all, 4, BLOCK=64, EARLY=True)
    build(multiprocessor_clock._count, 1, kinds={"out": "*i64"}, LONG=50_000)
    build(squared_relu._squared, 4, BLOCK=2048)
    build(squared_relu._gradient, 4, kinds=dict.fromkeys(["of_out", "of_x"], "*bf16"), BLOCK=2048)


if __name__ == "__main__":
    sys.exit(main())
