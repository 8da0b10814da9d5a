"""From a config to the work it needs."""
