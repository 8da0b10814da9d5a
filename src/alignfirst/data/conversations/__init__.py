"""Conversations in a row: messages, transcripts, and what a chat template leaves out of them."""
