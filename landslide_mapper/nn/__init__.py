"""Networks in pure torch, without input or output: encoder, architectures, losses, masking."""
