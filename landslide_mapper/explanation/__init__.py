"""Where a model looks: what is explained, the two passes over its windows, and the files."""
