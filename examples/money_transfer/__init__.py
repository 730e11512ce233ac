"""A transfer between two banks: undone before the point of no return, and carried through behind it."""
