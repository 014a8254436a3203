"""What pretraining, fine-tuning and inference share: rows of different lengths, packing, batches, files of rows."""
