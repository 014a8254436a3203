"""Checkpoints: one as a folder, those of a run, and the gathering of sharded models."""

from bert.checkpoint.folder import OWNED, encoder_config, load, resolve, save

__all__ = ["OWNED", "encoder_config", "load", "resolve", "save"]
