"""Models on disk and in memory: found, checked, loaded, changed, written."""
