"""A checkpoint is a folder that loads: one of them, those of a run, and the way into and out of sharded models."""

from bert.checkpoint.folder import OWNED, load, resolve, save

__all__ = ["OWNED", "load", "resolve", "save"]
