"""Names for what an app computes with a model and keeps: a KV cache, a session, an index of embeddings."""

import hashlib

import msgspec

from overair.model.release import Bundle


def cache_key(bundle: Bundle, *parts: str | float | bool | None) -> str:
    """A name for a cache, safe in a file name, that no other model has.

    A cache of one model is nonsense to another, also of the same shape, and an engine may refuse what another version
    of it wrote. So put into `parts` whatever else the cache depends on: `engine.version`, the length of the context,
    the prompt's own digest.

    Args:
        bundle: What the cache was computed with.
        parts: What else it depends on; 1 and "1" are different.

    Returns:
        49 characters. The first 16 are those of `bundle.id`, so that what a model left behind can be found and removed.
    """
    digest = hashlib.sha256(msgspec.json.encode([bundle.id, *parts])).hexdigest()
    return f"{bundle.id[:16]}-{digest[:32]}"
