"""An e-commerce order as a saga: reserve, charge, ship; and undo what was done when a later step fails."""
