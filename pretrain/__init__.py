"""From raw text to a pretrained encoder: tokenizer, corpus store, pretraining, evaluation."""
