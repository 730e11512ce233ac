"""A trip: flight, hotel and car are booked side by side, and taken back side by side when one of them fails."""
