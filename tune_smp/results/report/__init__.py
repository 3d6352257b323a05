"""report.html: what came out of a run or a search, on one page that needs no other file and no network."""
