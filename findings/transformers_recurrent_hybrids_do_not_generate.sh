#!/usr/bin/env bash
# transformers 5.24.0 (torch 2.13.0, CPU): a hybrid family with recurrent layers alone builds, computes logits and
# trains, but `generate` with its default cache raises ValueError.
#
# The configurations of these families take any sequence of layers, and nothing says that one must be attention. An
# engineer who compares a hybrid with its all-recurrent variant (the usual ablation) expects both to generate. But
# the models ask the cache how many tokens it holds, and only attention layers of a cache know that. One attention
# layer, anywhere, is enough; so is `use_cache=False`, which reads the whole sequence again for each token. Families
# that are recurrent by design, such as Mamba2, do not ask and generate.
#
# Seen: Bamba, GraniteMoeHybrid, Nemotron-H, LFM2, Qwen3-Next, Jamba, Zamba2 and RecurrentGemma raise "`get_seq_length`
# can only be called on Attention layers, and the current Cache seem to only contain LinearAttention layers"; LFM2 with
# one attention layer and Mamba2 generate the same tokens with a cache as without.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

assert (transformers.__version__, torch.__version__.partition("+")[0]) == ("5.24.0", "2.13.0")
transformers.logging.set_verbosity_error()
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_expand": 2}
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}
RECURRENT = {
    "bamba": {**HEADS, **MAMBA, "attn_layer_indices": []},
    "granitemoehybrid": {
        **HEADS, **MAMBA, "layer_types": ["mamba"] * 2, "shared_intermediate_size": 64, "num_local_experts": 0,
    },
    "nemotron_h": {
        **HEADS, "layers_block_type": ["mamba"] * 2, "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8,
        "n_groups": 1,
    },
    "lfm2": {**HEADS, "layer_types": ["conv"] * 2},
    "qwen3_next": {
        **HEADS, **LINEAR, "layer_types": ["linear_attention"] * 2, "num_experts": 0, "mlp_only_layers": [0, 1],
    },
    "jamba": {
        **HEADS, "attn_layer_period": 100, "attn_layer_offset": 99, "num_experts": 1, "use_mamba_kernels": False,
        "mamba_d_state": 8,
    },
    "zamba2": {
        "num_attention_heads": 4, "intermediate_size": 64, "layers_block_type": ["mamba"] * 2, "mamba_ngroups": 1,
        "n_mamba_heads": 8, "mamba_d_state": 8,
    },
    "recurrent_gemma": {
        "num_attention_heads": 4, "intermediate_size": 64, "block_types": ["recurrent"], "lru_width": 32,
    },
}
WITH_A_CACHE = [
    ("lfm2", {**HEADS, "layer_types": ["conv", "full_attention"]}),
    ("mamba2", {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1}),
]


def tokens(family: str, shape: dict, *, cache: bool) -> list[int]:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES, **shape)).eval()
    prompt = torch.randint(3, 64, (1, 6))
    return model.generate(prompt, max_new_tokens=5, min_new_tokens=5, do_sample=False, use_cache=cache)[0].tolist()


for family, shape in RECURRENT.items():
    assert len(tokens(family, shape, cache=False)) == 11
    try:
        tokens(family, shape, cache=True)
    except ValueError as error:
        print(f"{family}: without a cache 5 tokens, with one: {error}")
        assert "`get_seq_length` can only be called on Attention layers" in str(error)
    else:
        raise SystemExit(f"{family} generated with a cache")
for family, shape in WITH_A_CACHE:
    assert tokens(family, shape, cache=True) == tokens(family, shape, cache=False)
    print(f"{family} {shape.get('layer_types', 'by design')}: the same tokens with a cache and without")
PY
