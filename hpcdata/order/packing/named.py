"""A packing by its name, as a setting gives it."""

from __future__ import annotations

import re
from typing import cast

from hpcdata.base.errors import UserError
from hpcdata.order.checking import whole
from hpcdata.order.packing.base import Packing
from hpcdata.order.packing.buckets import Buckets
from hpcdata.order.packing.rows import BestFit, Concat


def find_packing(packing: int | str | Packing | None, length: int | None = None) -> Packing | None:
    """A number is the length of best-fit bins. A name has one behind it, or takes `length`: `bestfit:4096`, `concat`,
    `buckets:128` (the multiple).
    """
    if packing is None or hasattr(packing, "place"):
        return cast("Packing | None", packing)
    if not isinstance(packing, str):
        return BestFit(length=whole("packing", packing))
    match = re.fullmatch(r"(bestfit|concat|buckets)(?::([1-9]\d*))?", packing)
    if not match:
        raise UserError(f"packing {packing!r}: expected bestfit:4096, concat:4096, buckets or buckets:128")
    name, number = match[1], int(match[2]) if match[2] else None
    if name == "buckets":
        return Buckets() if number is None else Buckets(multiple=number)
    columns = number or length
    if columns is None:
        raise UserError(f"packing {packing!r} needs the columns of a row: {name}:4096, or a layout with max_length")
    return BestFit(length=columns) if name == "bestfit" else Concat(length=columns)
