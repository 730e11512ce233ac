"""Begin with README.md."""
