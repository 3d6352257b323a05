"""One run: knows no Ray, writes no file."""
