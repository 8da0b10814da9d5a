"""Distillation of one language model into another."""
