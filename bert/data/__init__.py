"""Shared by all: rows of different lengths, sequence packing, micro-batches, files of rows."""
