"""From files to pixels: every format that is read, what its tags mean, and label images on their way out."""
