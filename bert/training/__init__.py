"""The training engine that pretraining and fine-tuning share; see `bert.training.trainer`."""
