"""Parts of `lsmap train`: the run's folder, its tiles, its start, its processes, its log."""
