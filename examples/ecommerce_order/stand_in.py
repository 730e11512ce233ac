"""What the stand-in says in this example, where there is no key for a real model."""

from __future__ import annotations

from examples._support.stand_in import Asked, says


@says("confirmation_message")
def confirmation_message(asked: Asked) -> dict[str, str]:
    """The same words for everyone."""
    lines = len(asked["order_details"].splitlines())
    things = "one article" if lines == 1 else f"{lines} articles"
    return {"confirmation_message": f"Dear {asked['customer_name']}, thank you for your order of {things}."}
