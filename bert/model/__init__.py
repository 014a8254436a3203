"""The encoder and its heads. `bert.model.config` can be imported without torch."""
