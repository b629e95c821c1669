"""Whether images are those of a published data set, in whatever order a file holds them."""

from hashlib import sha256

import numpy as np

# SHA-256 over the sorted SHA-256s of label byte + channels-first pixels, of (train, test).
_DIGESTS = {
    "cifar10": (
        "55a61f79a40ece2ceda9fb5f9f7078f6ea2fc4952489cef56682bcf92cfcc260",
        "325704b01eb92e1e2a6215ae6a916bb7db7de054af0c496be1c7be2e0fcfbf5f",
    ),
}


def is_published(name: str, *parts) -> bool:
    """Whether `parts`, two pairs of images (n, C, P, P) uint8 and labels (n,), are the data set `name`.

    A data set whose digests are not known here counts as its name says.
    """
    return name not in _DIGESTS or tuple(digest(*part) for part in parts) == _DIGESTS[name]


def digest(images, labels) -> str:
    """A digest of images (n, C, P, P) uint8 and their labels that does not depend on their order."""
    if images.dtype != np.uint8 or labels.max() > 255:
        return ""
    each = (
        sha256(bytes([label]) + image.tobytes()).digest() for image, label in zip(images, labels, strict=True)
    )
    return sha256(b"".join(sorted(each))).hexdigest()
