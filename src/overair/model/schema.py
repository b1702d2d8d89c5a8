"""The JSON Schema of the manifest, for publishers and for readers in other languages."""

from typing import Any, Final

import msgspec

from overair.model.manifest import Manifest
from overair.model.release import URL

SCHEMA_ID: Final = "urn:overair:manifest:1"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a manifest, full or plain.

    It allows fields that it does not name, as every reader does (DESIGN section 4). What it cannot say, as that URLs
    do not climb and that a bundle's first model is the release's, `parse_manifest` checks.
    """
    (reference,), components = msgspec.json.schema_components((Manifest,), ref_template="#/$defs/{name}")
    name = reference["$ref"].rpartition("/")[2]
    definitions = {kind: {**definition, "additionalProperties": True} for kind, definition in components.items()}
    body = definitions.pop(name)
    (url,), _ = msgspec.json.schema_components((URL,))
    schema = {
        "$schema": _DIALECT,
        "$id": SCHEMA_ID,
        **body,
        "title": "Overair manifest",
        "description": "Which release each tier of a channel should run.",
        "patternProperties": {"^rollback_url_": {**url, "description": "where the tier's rollback release is"}},
        "$defs": definitions,
    }
    # Through JSON, where the defaults that are tuples are arrays.
    return msgspec.json.decode(msgspec.json.encode(schema), type=dict[str, Any])
