"""EC2's own service model, as botocore ships it: every action with the shape of its input and of its output."""

import gzip
import json
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from botocore.loaders import Loader
from botocore.model import OperationModel, OperationNotFoundError, ServiceModel, Shape

__all__ = ["API_VERSION", "OperationModel", "Shape", "operation", "service"]

API_VERSION = "2016-11-15"
_OPENERS: dict[str, Callable[..., Any]] = {".json": Path.open, ".json.gz": gzip.open}
# Prose, and values that this cloud does not check: three quarters of the model.
_LEFT_OUT = frozenset({"documentation", "deprecatedMessage", "enum", "examples"})
_Json: TypeAlias = dict[str, Any]
_lock = threading.Lock()


class _LeanFiles:
    """botocore's file loader, leaving the prose out while it parses: 8 MB stay in memory instead of 24."""

    def exists(self, file_path: str) -> bool:
        return any(Path(file_path + suffix).is_file() for suffix in _OPENERS)

    def load_file(self, file_path: str) -> _Json | None:
        for suffix, open_it in _OPENERS.items():
            path = Path(file_path + suffix)
            if path.is_file():
                with open_it(path, "rb") as file:
                    loaded: _Json = json.loads(file.read(), object_pairs_hook=_lean)
                return loaded
        return None


def _lean(pairs: list[tuple[str, Any]]) -> _Json:
    return {key: value for key, value in pairs if key not in _LEFT_OUT or isinstance(value, dict)}


@cache
def _load() -> ServiceModel:
    # Only what botocore ships: a model in the home folder of the user that runs the door shall not change the API.
    loader = Loader([Loader.BUILTIN_DATA_PATH], file_loader=_LeanFiles(), include_default_search_paths=False)
    return ServiceModel(loader.load_service_model("ec2", "service-2", API_VERSION), service_name="ec2")


def service() -> ServiceModel:
    """The whole model, loaded by the first caller and shared; safe from several threads."""
    with _lock:
        return _load()


def operation(name: str) -> OperationModel | None:
    """The model of one action; None when EC2 has no action of this name."""
    try:
        return service().operation_model(name)
    except OperationNotFoundError:
        return None
