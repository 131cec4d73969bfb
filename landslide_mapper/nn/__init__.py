"""Networks, without input or output: encoder, architectures, losses, masking, what they see."""
