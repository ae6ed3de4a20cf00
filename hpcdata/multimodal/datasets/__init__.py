"""Examples of the raw path: where they come from, and by which name."""
