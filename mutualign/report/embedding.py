"""An embedding of features in two dimensions: principal components, then t-SNE."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

COMPONENTS = 50
PERPLEXITY = 30.0
FEWEST = 10  # points that make an embedding


def embed(features: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n 2"] | None:
    """Compute a deterministic embedding of the rows of features.

    Returns None for fewer than ten rows, rows that are all equal, or numbers that are not finite.
    Source: van der Maaten & Hinton, "Visualizing data using t-SNE", JMLR 9, 2008; initialised with the first two
    principal components (Kobak & Berens, Nature Communications 10, 2019).
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n = len(features)
    wide = features.astype(np.float64)
    if n < FEWEST or not np.isfinite(wide).all() or wide.std(axis=0).max() < 1e-9:
        return None
    components = min(COMPONENTS, *wide.shape)
    reduced = PCA(components, svd_solver="full").fit_transform(wide).astype(np.float32)
    init = "pca" if components > 1 else "random"
    tsne = TSNE(init=init, perplexity=min(PERPLEXITY, (n - 1) / 3), random_state=0)
    return np.asarray(tsne.fit_transform(reduced), dtype=np.float64)
