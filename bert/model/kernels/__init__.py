"""Code that is written for speed on one kind of device: the same results as the plain code, in less time or memory."""
