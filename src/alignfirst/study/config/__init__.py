"""The config of a study: sections, presets, overrides, refusals."""
