"""What a probe asks of a release before it may become current."""

from typing import Annotated

import msgspec


class ProbePolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a probe asks a release, and the slowest answer that passes, in tokens a second."""

    prompts: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    min_tokens_per_second: Annotated[float, msgspec.Meta(ge=0)] | None = None
