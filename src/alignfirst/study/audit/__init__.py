"""What an audit of models needs is planned, computed as a study's nodes are, and judged."""
