"""A user's own models and preference data, through either order."""
