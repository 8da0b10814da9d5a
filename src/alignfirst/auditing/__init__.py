"""The audit: whether a reference can be aligned, known before it is paid for. Arrays and rows in, findings out."""
