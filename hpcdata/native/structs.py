"""The structs of kernels.c: a batch that is assembled has too many arrays for arguments."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np

from hpcdata.native.addresses import at

Values = Mapping[str, int | np.ndarray | None]
"""Fields of a struct of kernels.c by their names: numbers and arrays, None where an array is not wanted."""


class Struct:
    """A struct of kernels.c, numbers first: which arrays it points to, and how long each must be."""

    def __init__(self, name: str, numbers: str, *arrays: tuple[str, str, type]) -> None:
        """arrays: (names, what says their length, dtype), in the order of the struct."""
        self._arrays = {field: (size, dtype) for names, size, dtype in arrays for field in names.split()}
        fields: list[tuple[str, type]] = [(field, ctypes.c_int64) for field in numbers.split()]
        fields += [(field, ctypes.c_void_p) for field in self._arrays]
        self._type = type(name, (ctypes.Structure,), {"_fields_": fields})

    def fill(self, values: Values, **sizes: int) -> ctypes.Structure:
        """It points into arrays that it does not keep."""
        known = {**values, **sizes}
        filled = self._type()
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                size, dtype = self._arrays[name]
                value = at(value, int(known[size]), dtype)  # type: ignore[arg-type]
            setattr(filled, name, value)
        return filled


_INT, _BOOL = np.int64, np.bool_
LINEUP = Struct(
    "_Lineup",
    "num_samples num_spans num_parts has_bos has_end framed bos unconditional eos boi eoi img_token_shift "
    "bos_trained text_trained boi_trained image_trained eoi_trained eos_trained",
    ("row part token taken head tail", "num_spans", _INT),
    ("first_token_of_part", "num_parts", _INT),
    ("is_image has_loss", "num_spans", _BOOL),
    ("lead end left_out_images", "num_samples", _INT),
    ("is_unconditional too_long truncated", "num_samples", _BOOL),
    ("first_span", "num_edges", _INT),
)
BINS = Struct(
    "_Bins",
    "num_bins",
    ("sample skip take", "num_rows", _INT),
    ("first_row", "num_edges", _INT),
    ("width", "num_bins", _INT),
)
TILES = Struct(
    "_Tiles",
    "room num_edges",
    ("runs", "all_runs", _INT),
    ("first_kept", "num_bin_edges", _INT),
    ("edges", "all_edges", _INT),
    ("first_edge", "num_bin_edges", _INT),
    ("counted", "all_counts", _INT),
)
