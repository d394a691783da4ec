"""What the server offers and what a client said that it can do (contract: custom-nodes.md section 4.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.cli_args import args


def get_server_features() -> dict[str, Any]:
    """What `/features` and the websocket's first message tell."""
    return {"supports_preview_metadata": True, "max_upload_size": args.max_upload_size * 1024 * 1024}


def get_connection_feature(sockets_metadata: Mapping[str, Mapping[str, Any]], sid: str, feature_name: str, default: Any = False) -> Any:
    """What the client `sid` said about one feature; `default` when it said nothing."""
    return sockets_metadata.get(sid, {}).get("feature_flags", {}).get(feature_name, default)


def supports_feature(sockets_metadata: Mapping[str, Mapping[str, Any]], sid: str, feature_name: str) -> bool:
    """Whether the client said that it can do it."""
    return get_connection_feature(sockets_metadata, sid, feature_name) is True
