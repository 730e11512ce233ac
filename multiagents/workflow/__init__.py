"""The pure core: definitions, state, and what follows from an event."""
