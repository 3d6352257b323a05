"""What a user keeps."""
