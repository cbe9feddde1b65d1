"""Two indexes of the same images as one: their vectors side by side, without embedding anything."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.engine.index import CHUNK_ROWS, VECTORS, VectorIndex, build_index

Floats = NDArray[np.float32]


def combine_indexes(
    folder: Path,
    first: VectorIndex,
    second: VectorIndex,
    *,
    embedder: str,
    revision: str,
    memory_bytes: int | None = None,
) -> VectorIndex:
    """Write the index of the images that both hold into an existing `folder`, and open it.

    `memory_bytes` as in `build_index`. Row order is that of `first`. Raises VectorsNotUsable when
    they have no image in common.
    Cosines in it are the mean of both cosines: see `combine_vectors`.
    """
    image_ids = first.image_ids[np.isin(first.image_ids, second.image_ids)]
    first_rows, second_rows = first.rows_of(image_ids), second.rows_of(image_ids)
    shape = (len(image_ids), first.dimension + second.dimension)
    with (folder / VECTORS).open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(image_ids), CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            file.write(
                combine_vectors(
                    first.vectors[first_rows[chunk]], second.vectors[second_rows[chunk]]
                ).data
            )
    vectors = np.load(folder / VECTORS, mmap_mode="r")
    return build_index(
        folder,
        vectors=vectors,
        image_ids=image_ids,
        embedder=embedder,
        revision=revision,
        memory_bytes=memory_bytes,
    )


def combine_vectors(first: Floats, second: Floats) -> Floats:
    """Vectors side by side, each scaled by 1/sqrt(2).

    Parameters: `first` (..., d1) and `second` (..., d2) float32 unit rows. Returns (..., d1 + d2)
    float32 unit rows; the cosine of two such rows is the mean of the cosines of their parts.
    Source: concatenation of normalised features, as in late fusion by the mean of kernels;
    G. Lanckriet et al., "Learning the kernel matrix with semidefinite programming", JMLR 5, 2004.
    """
    return np.ascontiguousarray(
        np.concatenate([first, second], axis=-1) * np.float32(np.sqrt(0.5)), dtype=np.float32
    )


def place_in_part(vector: Floats, *, before: int, after: int) -> Floats:
    """A vector of one part alone, in the space of both: zeros in the other part.

    Parameters: `vector` (d,) float32 unit; `before` and `after` >= 0 numbers of the other part, one
    of them 0. Returns (before + d + after,) float32, unit. Its cosines to rows of the combined
    index are those of its own part, all scaled by 1/sqrt(2): the order stays.
    """
    return np.pad(vector, (before, after))
