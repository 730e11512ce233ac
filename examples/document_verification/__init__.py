"""Documents are read, classified, checked, decided upon and archived; one by one, and a batch at once."""
