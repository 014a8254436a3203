"""From text to batches: documents, sentences, token ids, examples, steps."""
