"""What was measured on this machine, kept on disk: versioned JSON, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from irprune.atomic import write_text
from irprune.errors import IrpruneError

VARIABLE = "IRPRUNE_CACHE"
VERSION = 1


def folder() -> Path:
    """Return where caches live: the variable ``IRPRUNE_CACHE``, else the platform's own place."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "irprune"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "irprune" / "Cache"
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "irprune"


class Cache:
    """One JSON object per key, in a file named after the key's hash."""

    def __init__(self, kind: str, key: Mapping[str, Any]) -> None:
        self.kind = kind
        self.key = {"version": VERSION, **key}
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        self.path = folder() / f"{kind}-{digest[:16]}.json"

    def load(self, log: Callable[[str], None]) -> dict[str, Any]:
        """Return what was saved, {} where there is nothing; an unusable file is left out."""
        try:
            data = json.loads(self.path.read_text())
            if data["format"] != self.kind or data["key"] != self.key:
                raise ValueError("it holds something else")
            content = data["content"]
            if not isinstance(content, dict):
                raise ValueError("it holds no object")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            log(f"{self.path} is ignored: {error}")
            return {}
        return content

    def save(self, content: Mapping[str, Any], log: Callable[[str], None]) -> None:
        """Write the content; a folder that cannot be written is said and is no error."""
        data = {"format": self.kind, "key": self.key, "content": content}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(data, allow_nan=False))
        except (OSError, IrpruneError) as error:
            log(f"measurements are not kept: {error}")
