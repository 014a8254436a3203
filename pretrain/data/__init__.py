"""From a store to batches: plan, examples, masks, steps. Online, while training."""
