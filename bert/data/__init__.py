"""Shared by pretraining, fine-tuning and inference: rows of different lengths, packing, batches, files of rows."""
