"""Exact arithmetic for a model: it writes an expression, and this computes it, without running any code.

Of Python's grammar it takes numbers, ``+ - * / **``, parentheses, ``round``, ``min`` and ``max``; nothing else has a
meaning here. Numbers are fractions, so ``0.1 + 0.2`` is ``0.3``.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

#: Longer ones are refused, and larger exponents and numbers: a model may write anything.
MOST_CHARACTERS = 200
MOST_EXPONENT = 64
MOST_BITS = 4096
#: How many digits behind the point are shown of what has no end.
DIGITS = 12

_OPERATORS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {"round": round, "min": min, "max": max}


class CalculationError(ValueError):
    """This cannot be computed; the message is for the model, which may try again."""


def compute(expression: str) -> Fraction:
    """The value of an expression, exactly.

    Raises:
        CalculationError: when it is none, or too large.

    >>> compute("(0.1 + 0.2) * 10")
    Fraction(3, 1)
    """
    if len(expression) > MOST_CHARACTERS:
        raise CalculationError(f"at most {MOST_CHARACTERS} characters, got {len(expression)}; compute it in parts")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return _value(tree.body, expression.strip())
    except (SyntaxError, RecursionError, MemoryError):
        raise CalculationError(f"{expression!r} is no expression such as (463894.20 - 412350.40) / 3") from None
    except ZeroDivisionError:
        raise CalculationError(f"{expression!r} divides by zero") from None


def in_digits(value: Fraction) -> str:
    """Write a number as decimals: all of them where they end, else rounded, which is said.

    >>> in_digits(Fraction(5, 4)), in_digits(Fraction(2, 3))
    ('1.25', '0.666666666667 (rounded)')
    """
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    ends = denominator == 1
    places = len(str(value.denominator)) * 4 if ends else DIGITS
    digits = str(abs(round(value * 10**places))).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")
    sign = "-" if value < 0 and text.strip("0.") else ""
    return f"{sign}{text}{'' if ends else ' (rounded)'}"


def _value(node: ast.AST, source: str) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            # As it is written: as a float, 0.1 is no tenth any more.
            return _small(Fraction(ast.get_source_segment(source, node) or ""))
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand, source)
        case ast.UnaryOp(op=ast.UAdd()):
            return _value(node.operand, source)
        case ast.BinOp(op=ast.Pow()):
            return _power(_value(node.left, source), _value(node.right, source))
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _small(_OPERATORS[type(node.op)](_value(node.left, source), _value(node.right, source)))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            return _called(name, [_value(each, source) for each in node.args])
        case _:
            what = ast.get_source_segment(source, node) or type(node).__name__
            raise CalculationError(f"{what!r} means nothing here; there are numbers, + - * / **, round, min and max")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > MOST_EXPONENT:
        raise CalculationError(f"an exponent is a whole number of at most {MOST_EXPONENT}, got {in_digits(exponent)}")
    return _small(base ** int(exponent))


def _called(name: str, values: list[Fraction]) -> Fraction:
    if name == "round" and len(values) == 2 and values[1].denominator == 1 and 0 <= values[1] <= DIGITS:
        return Fraction(round(values[0], int(values[1])))
    if (name == "round" and len(values) == 1) or (name != "round" and values):
        return Fraction(_FUNCTIONS[name](*values) if len(values) == 1 and name == "round" else _FUNCTIONS[name](values))
    raise CalculationError(f"{name} takes {'a number, and how many digits' if name == 'round' else 'numbers'}")


def _small(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MOST_BITS or value.denominator.bit_length() > MOST_BITS:
        raise CalculationError(f"a number became too large (more than {MOST_BITS} bits)")
    return value
