"""Whole programs, each in a folder of its own with a README."""

#: Every example, in the order in which they are best read.
EXAMPLES = (
    "hello",
    "ecommerce_order",
    "trip_booking",
    "money_transfer",
    "expense_approval",
    "subscription_billing",
    "batch_processing",
    "chatbot",
    "content_pipeline",
    "codebase_qa",
    "document_verification",
    "research_assistant",
)
