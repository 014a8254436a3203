"""What our keys are called elsewhere: in transformers, in ModernBERT's recipes and in Google's BERT.

`--help` and docs/coming-from.md show this table, and the error for an unknown key uses it, so that readers find a key
by the name they know.
"""

from collections.abc import Container
from typing import NamedTuple

TOOLKITS = "transformers", "ModernBERT", "Google's BERT"


class Elsewhere(NamedTuple):
    """A key of ours, its names elsewhere (several are divided by blanks), and what differs."""

    key: str
    transformers: str
    """TrainingArguments, run_mlm.py, run_classification.py, data collators and model configurations"""
    modernbert: str
    """the YAML files of AnswerDotAI/ModernBERT, which are read by composer"""
    google: str
    """create_pretraining_data.py, run_pretraining.py and bert_config.json of google-research/bert"""
    differs: str = ""

    def __str__(self) -> str:
        """One line, so that a search of `--help` for a foreign name shows ours."""
        toolkits: dict[str, list[str]] = {}
        for toolkit, names in zip(TOOLKITS, self[1:4]):
            toolkits.setdefault(names, []).append(toolkit)
        groups = (f"{', '.join(names.split())} ({', '.join(by)})" for names, by in toolkits.items() if names)
        return f"{self.key}: {'; '.join(part for part in (', '.join(groups), self.differs) if part)}"


TABLE = (
    Elsewhere("run_dir", "output_dir", "save_folder", "output_dir"),
    Elsewhere(
        "seed", "seed data_seed", "seed", "random_seed", "one seed for weights, order, masks and dropout"
    ),
    Elsewhere(
        "resume",
        "resume_from_checkpoint",
        "autoresume load_path",
        "",
        "the same command resumes; no flag needed",
    ),
    Elsewhere(
        "corpus.files",
        "train_file dataset_name",
        "data_local data_remote",
        "input_file",
        "raw text, not yet tokenised",
    ),
    Elsewhere("corpus.heldout_share", "validation_split_percentage", "", "", "a share of the documents"),
    Elsewhere("tokenizer.from", "tokenizer_name", "tokenizer_name", "vocab_file", "left out: one is trained"),
    Elsewhere("tokenizer.lowercase", "do_lower_case", "", "do_lower_case"),
    Elsewhere("tokenizer.strip_accents", "strip_accents", "", ""),
    Elsewhere("prepare.workers", "preprocessing_num_workers num_proc", "", ""),
    Elsewhere(
        "model.from", "model_name_or_path", "init_from_checkpoint", "init_checkpoint", "a local folder"
    ),
    Elsewhere("model.num_layers", "num_hidden_layers", "num_hidden_layers", "num_hidden_layers"),
    Elsewhere("model.num_heads", "num_attention_heads", "num_attention_heads", "num_attention_heads"),
    Elsewhere("model.num_kv_heads", "num_key_value_heads", "", ""),
    Elsewhere("model.max_positions", "max_position_embeddings", "", "max_position_embeddings"),
    Elsewhere("model.embedding_size", "embedding_size", "", "", "ALBERT, ELECTRA"),
    Elsewhere("model.num_layer_groups", "num_hidden_groups", "", "", "ALBERT"),
    Elsewhere("model.num_tasks", "task_type_vocab_size", "", "", "ERNIE"),
    Elsewhere("model.num_segments", "type_vocab_size", "", "type_vocab_size"),
    Elsewhere(
        "model.positions", "position_embedding_type", "attention_layer embedding_layer", "", "rotary is RoPE"
    ),
    Elsewhere("model.rotary_base", "rope_theta", "rotary_emb_base", ""),
    Elsewhere("model.rotary_base_local", "rope_theta", "local_attn_rotary_emb_base", ""),
    Elsewhere("model.norm", "", "bert_layer", "", "pre or post; prenorm or postnorm there"),
    Elsewhere("model.norm_kind", "", "normalization", "", "layer or rms; layernorm or rmsnorm there"),
    Elsewhere("model.norm_eps", "layer_norm_eps norm_eps rms_norm_eps", "norm_kwargs.eps", ""),
    Elsewhere("model.embedding_norm", "", "embed_norm", ""),
    Elsewhere("model.first_norm_identity", "", "skip_first_prenorm", ""),
    Elsewhere("model.tied_decoder", "tie_word_embeddings", "", ""),
    Elsewhere("model.feed_forward", "", "mlp_layer", ""),
    Elsewhere("model.attention_bias", "attention_bias", "attn_qkv_bias attn_out_bias", ""),
    Elsewhere("model.feed_forward_bias", "mlp_bias", "mlp_in_bias mlp_out_bias", ""),
    Elsewhere("model.activation", "hidden_act hidden_activation", "hidden_act", "hidden_act"),
    Elsewhere(
        "model.layer_pattern",
        "layer_types",
        "global_attn_every_n_layers",
        "",
        "GLL: each third one is global",
    ),
    Elsewhere("model.window", "local_attention", "sliding_window", "", "the total width"),
    Elsewhere(
        "model.dropout",
        "hidden_dropout_prob mlp_dropout",
        "attn_out_dropout_prob mlp_dropout_prob",
        "hidden_dropout_prob",
    ),
    Elsewhere(
        "model.attention_dropout",
        "attention_probs_dropout_prob attention_dropout",
        "attention_probs_dropout_prob",
        "attention_probs_dropout_prob",
    ),
    Elsewhere("model.embedding_dropout", "embedding_dropout", "embed_dropout_prob", ""),
    Elsewhere("model.pooling", "classifier_pooling", "", ""),
    Elsewhere("model.init_std", "initializer_range", "init_std", "initializer_range"),
    Elsewhere("model.backend", "attn_implementation", "", ""),
    Elsewhere("model.gradient_checkpointing", "gradient_checkpointing", "gradient_checkpointing", ""),
    Elsewhere(
        "objective.mask_prob", "mlm_probability", "mlm_probability", "masked_lm_prob", "may fall over the run"
    ),
    Elsewhere("objective.mask_token_prob", "mask_replace_prob", "", ""),
    Elsewhere("objective.random_token_prob", "random_replace_prob", "", ""),
    Elsewhere(
        "objective.masking",
        "whole_word_mask DataCollatorForWholeWordMask DataCollatorForLanguageModeling",
        "",
        "do_whole_word_mask",
        "masking=whole_word; dynamic masking, with 80/10/10",
    ),
    Elsewhere("objective.max_predictions", "", "", "max_predictions_per_seq", "0 has no limit"),
    Elsewhere(
        "objective.pairing",
        "BertForPreTraining",
        "",
        "",
        "next_sentence is on by default, as in Google's BERT",
    ),
    Elsewhere("objective.short_prob", "", "", "short_seq_prob"),
    Elsewhere(
        "batch.sequences",
        "per_device_train_batch_size",
        "global_train_batch_size",
        "train_batch_size",
        "a whole optimizer step: of all micro-batches on all processes",
    ),
    Elsewhere(
        "batch.micro_tokens",
        "per_device_train_batch_size gradient_accumulation_steps",
        "device_train_microbatch_size",
        "",
        "tokens that one process holds at a time; gradient accumulation follows from it",
    ),
    Elsewhere(
        "batch.max_length",
        "max_seq_length",
        "max_seq_len",
        "max_seq_length",
    ),
    Elsewhere(
        "batch.layout",
        "DataCollatorWithFlattening DataCollatorWithPadding pad_to_max_length group_by_length",
        "sequence_packing padding unpad_embeddings",
        "",
        "packed is sequence packing; sequences do not attend to each other",
    ),
    Elsewhere(
        "batch.phases",
        "",
        "batch_size_warmup_tokens",
        "",
        "in Google's BERT two runs, of 128 and of 512 tokens",
    ),
    Elsewhere("optimizer.name", "optim", "optimizer.name", ""),
    Elsewhere("optimizer.learning_rate", "learning_rate", "optimizer.lr", "learning_rate", "the peak"),
    Elsewhere(
        "optimizer.weight_decay",
        "weight_decay",
        "weight_decay filter_bias_norm_wd",
        "",
        "never of biases, norms",
    ),
    Elsewhere("optimizer.betas", "adam_beta1 adam_beta2", "betas", ""),
    Elsewhere("optimizer.eps", "adam_epsilon", "eps", ""),
    Elsewhere("optimizer.max_grad_norm", "max_grad_norm", "clipping_threshold", "", "gradient clipping"),
    Elsewhere("schedule.name", "lr_scheduler_type", "scheduler.name", ""),
    Elsewhere(
        "schedule.warmup", "warmup_steps warmup_ratio", "t_warmup", "num_warmup_steps", "a share or steps"
    ),
    Elsewhere(
        "schedule.cooldown", "num_decay_steps", "t_decay", "", "of schedule.name=wsd (warm-up, stable, decay)"
    ),
    Elsewhere("schedule.min_lr_ratio", "min_lr_rate", "alpha_f", ""),
    Elsewhere("training.steps", "max_steps", "max_duration", "num_train_steps", "max_duration in ba"),
    Elsewhere("training.tokens", "", "max_duration", "", "max_duration in tok"),
    Elsewhere(
        "training.epochs",
        "num_train_epochs",
        "max_duration",
        "dupe_factor",
        "each epoch has new masks (dynamic masking), so no data is duplicated",
    ),
    Elsewhere("training.precision", "bf16 fp16", "precision", "", "mixed precision; bf16 is the default"),
    Elsewhere("training.tf32", "tf32", "", ""),
    Elsewhere("training.compile", "torch_compile", "compile_model compile_config", ""),
    Elsewhere("training.num_workers", "dataloader_num_workers", "num_workers", ""),
    Elsewhere("training.save_every", "save_steps", "save_interval", "save_checkpoints_steps"),
    Elsewhere(
        "training.keep_last", "save_total_limit", "save_num_checkpoints_to_keep", "", "the best one is extra"
    ),
    Elsewhere(
        "training.keep_best",
        "load_best_model_at_end",
        "",
        "",
        "fine-tuning ends with the best checkpoint, pretraining with the last",
    ),
    Elsewhere("training.evaluate_every", "eval_steps", "eval_interval", ""),
    Elsewhere("training.timeout_minutes", "ddp_timeout", "", "", "minutes, not seconds"),
    Elsewhere("evaluation.sequences", "max_eval_samples", "eval_subset_num_batches", "max_eval_steps"),
    Elsewhere("task.dataset", "dataset_name", "", ""),
    Elsewhere("task.train", "train_file", "", ""),
    Elsewhere("task.validation", "validation_file", "", ""),
    Elsewhere("task.test", "test_file", "", ""),
    Elsewhere("task.metric", "metric_for_best_model", "", ""),
    Elsewhere("task.patience", "early_stopping_patience EarlyStoppingCallback", "", "", "early stopping"),
    Elsewhere("tracking.log_every", "logging_steps", "console_log_interval", ""),
    Elsewhere("tracking.wandb", "report_to", "loggers.wandb", ""),
    Elsewhere("tracking.tensorboard", "report_to", "", ""),
    Elsewhere("tracking.project", "project", "loggers.wandb.project", ""),
    Elsewhere("tracking.name", "run_name", "run_name", ""),
)


def of(keys: Container[str]) -> list[Elsewhere]:
    """The rows of some keys."""
    return [row for row in TABLE if row.key in keys]


def called(name: str, keys: Container[str]) -> list[Elsewhere]:
    """The rows of those of some keys that have this name elsewhere."""
    return [row for row in of(keys) if name in " ".join(row[1:4]).split()]
