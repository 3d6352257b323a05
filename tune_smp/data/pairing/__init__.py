"""From folders to pairs: file names, patterns, and which label belongs to which image."""
