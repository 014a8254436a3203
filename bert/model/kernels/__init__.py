"""Kernels: faster code for one kind of device, with the same results as the plain code."""
