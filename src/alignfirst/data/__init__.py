"""Preference data and prompts: readers, pairs, tokens, the split. Takes a tokenizer and never loads one."""
