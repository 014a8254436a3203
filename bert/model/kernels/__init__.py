"""What is written for a device's sake: the same results as the plain code, in less time or memory."""
