"""Questions about a code base, answered with citations that are checked."""
