"""From model to masks."""
