"""A BERT toolkit: encoders, tokenizers, checkpoints, inference and the training engine."""
