"""Keys of a config.json that change nothing in the logits of a language model, by family.

A key is mapped in `families`, or listed here, or refused. The keys here occur in configurations
that `transformers` writes or that are published, and `transformers` computes the same logits
whatever their values are.
"""

from typing import Any


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


GENERATION = _names("""
    assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens
    cache_implementation decoder_start_token_id diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id guidance_scale length_penalty
    max_length max_new_tokens max_time min_length min_new_tokens min_p no_repeat_ngram_size
    num_assistant_tokens num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences
    output_logits output_scores penalty_alpha prompt_lookup_num_tokens remove_invalid_values
    renormalize_logits repetition_penalty return_dict_in_generate sequence_bias stop_strings suppress_tokens
    temperature token_healing top_k top_p typical_p use_cache watermarking_config
    """)
"""Keys for the choice of tokens from logits."""

TRAINING = _names("""
    attention_dropout finetuning_task gradient_checkpointing hidden_dropout id2label initializer_range
    label2id neftune_noise_alpha num_labels pretraining_tp problem_type task_specific_params
    """)
"""Keys that only training uses, or a head for another task."""

BOOKKEEPING = _names("""
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash
    _experts_implementation_internal _flash_attn_2_enabled _name_or_path attn_implementation bos_token_id
    chunk_size_feed_forward dtype eos_token_id experts_implementation is_decoder max_position_embeddings
    name_or_path output_attentions output_hidden_states pad_token_id prefix sep_token_id tf_legacy_loss
    tie_last_hidden_states tokenizer_class torch_dtype torchscript transformers.js_config transformers_version
    unk_token_id unsloth_fixed unsloth_version use_bfloat16
    """)
"""Keys for a model's origin, precision, implementation, further outputs and special tokens."""

WITHOUT_EFFECT = GENERATION | TRAINING | BOOKKEEPING

MAMBA_TRAINING = _names(
    "chunk_size rescale_prenorm_residual residual_in_fp32 rms_norm_eps "
    "time_step_floor time_step_max time_step_rank"
)
"""Keys for a Mamba2 layer's first values and chunks, and one that layer_norm_epsilon stands in for."""

EXPERTS = _names("""
    moe_intermediate_size moe_latent_size moe_shared_expert_intermediate_size moe_shared_expert_overlap
    n_group n_routed_experts n_shared_experts norm_topk_prob num_experts_per_tok num_local_experts
    output_router_logits routed_scaling_factor topk_group
    """)
"""Keys for layers of experts; a model with such layers is refused when its layers are read."""

FAMILY_WITHOUT_EFFECT: dict[str, frozenset[str]] = {
    "llama": frozenset(),
    # The attention of this family has biases, whatever the key's value.
    "qwen2": frozenset({"attention_bias"}),
    "qwen3": frozenset(),
    # norm_before_gate: it is true for Codestral, and transformers still normalizes after the gate.
    "mamba2": MAMBA_TRAINING
    | {"intermediate_size", "norm_before_gate", "time_step_init_scheme", "time_step_min", "time_step_scale"},
    # This family rotates nothing, and its Mamba2 layers have heads times head_dim channels.
    "nemotron_h": MAMBA_TRAINING
    | EXPERTS
    | _names("""
        expand mamba_chunk_size mamba_dt_init_floor mamba_dt_max mamba_expand mamba_ssm_cache_dtype
        mtp_hybrid_override_pattern mtp_layers_block_type num_logits_to_keep partial_rotary_factor
        rope_parameters rope_scaling rope_theta use_mamba_kernels
        """),
    "olmo_hybrid": _names(
        "linear_a_log_max linear_a_log_min linear_dt_init_floor linear_dt_max linear_dt_min"
    ),
    "arcee": frozenset(),
    # intermediate_size is that of experts, which a model without experts has not.
    "granitemoehybrid": EXPERTS
    | _names("init_method intermediate_size mamba_chunk_size router_aux_loss_coef"),
    "qwen3_5_text": _names("full_attention_interval mamba_ssm_dtype"),
    "qwen3_next": EXPERTS
    | _names("""
        decoder_sparse_step full_attention_interval mlp_only_layers num_experts router_aux_loss_coef
        shared_expert_intermediate_size
        """),
    "lfm2": _names("block_dim conv_dim conv_dim_out conv_use_xavier_init use_pos_enc"),
    # This family rotates nothing. The sizes of latent attention change nothing without it.
    "kimi_linear": EXPERTS
    | _names("""
        attention_bias first_k_dense_replace head_dim kv_lora_rank mla_use_nope model_max_length
        moe_layer_freq moe_renormalize moe_router_activation_func num_attention_heads num_expert_group
        num_experts num_experts_per_token num_key_value_heads num_shared_experts q_lora_rank qk_head_dim
        qk_nope_head_dim qk_rope_head_dim rope_parameters rope_scaling rope_theta topk_method
        use_grouped_topk v_head_dim
        """),
}

NEUTRAL: dict[str, Any] = {
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    # transformers takes null for false, and false makes attention look ahead.
    "is_causal": True,
    "is_encoder_decoder": False,
    "is_llama_config": True,
    "mlp_bias": False,
    "num_nextn_predict_layers": 0,
    "pruned_heads": {},
    "return_dict": True,
    "rms_norm": True,
    "rope_interleaved": False,
    "tie_encoder_decoder": False,
    "use_bidirectional_attention": False,
    "use_mrope": False,
    "use_return_dict": True,
    "use_sliding_window": False,
}
"""The one value with which a key changes nothing, for all families."""

FAMILY_NEUTRAL: dict[str, dict[str, Any]] = {
    "llama": {"activation": "swiglu"},
    "granitemoehybrid": {"normalization_function": "rmsnorm"},
}
"""The same for one family: Falcon3 writes `activation` beside hidden_act."""
