"""Everything that a user keeps."""
