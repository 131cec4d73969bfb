"""Networks in pure torch, without input or output: encoder, MRIFE, masking, losses, metrics."""
