"""How `lsmap detect` works: a plan, blocks that become parts, parts that are joined."""
