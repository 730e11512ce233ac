"""A subscription: a charge every month, reminders when a card fails, and three ways to end it."""
