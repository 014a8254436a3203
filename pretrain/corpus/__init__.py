"""From files to a store: documents, sentences, token ids, shards. Offline, before training."""
