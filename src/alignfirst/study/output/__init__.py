"""What a run leaves: its directory, rows and files."""
