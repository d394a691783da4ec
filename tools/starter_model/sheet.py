"""Many pictures on one sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.starter_model.studio import Pictures


def save_sheet(path: Path, rows: list[Pictures], columns: int = 10) -> None:
    """Write the pictures, each (n, side, side, 3) of one size, in rows of `columns`; each list begins a new row."""
    from PIL import Image

    lines = []
    for pictures in rows:
        for start in range(0, len(pictures), columns):
            line = list(pictures[start : start + columns])
            line += [np.full_like(pictures[0], 255)] * (columns - len(line))
            lines.append(np.concatenate(line, axis=1))
    Image.fromarray(np.concatenate(lines)).save(path, optimize=True)
