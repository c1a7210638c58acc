"""The store of artifacts: one folder per finished stage, made once, never half, checked before every use."""

from aipo.artifacts.files import StaleArtifactError, StoreError
from aipo.artifacts.manifest import Artifact, check_folder, fingerprint, load_manifest, read_manifest, seal
from aipo.artifacts.store import PlanStore, StageEvent, StageReport, Store

__all__ = [
    "Artifact",
    "PlanStore",
    "StageEvent",
    "StageReport",
    "StaleArtifactError",
    "Store",
    "StoreError",
    "check_folder",
    "fingerprint",
    "load_manifest",
    "read_manifest",
    "seal",
]
