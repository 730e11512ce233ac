"""Whole programs, each in a folder of its own with a README."""

#: Every example, in the order in which they are best read.
EXAMPLES = (
    "ecommerce_order",
    "trip_booking",
    "money_transfer",
    "expense_approval",
    "subscription_billing",
    "batch_processing",
)
