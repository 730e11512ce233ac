"""What the stand-in says in this example, where there is no key for a real model."""

from __future__ import annotations

from examples._support.stand_in import Asked, says


@says("message")
def message(asked: Asked) -> dict[str, str]:
    """A sentence with both in it."""
    return {"message": f"{asked['greeting']} Your sum is {asked['sum']}."}
