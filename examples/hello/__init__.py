"""A greeting and a sum, in words that a model finds."""
