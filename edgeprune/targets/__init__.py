"""Device profiles: shipped ones by name, a user's own by name or path, and this host as detected."""

from edgeprune.targets.files import (
    check_profile,
    describe_host,
    list_targets,
    load_target,
    own_targets,
    targets_folder,
)
from edgeprune.targets.profile import (
    TARGET_SCHEMA_VERSION,
    Calibration,
    IntegerRoofline,
    KindTable,
    Roofline,
    TargetProfile,
    is_arm,
)
from edgeprune.targets.writing import differences, to_toml

__all__ = [
    "TARGET_SCHEMA_VERSION",
    "Calibration",
    "IntegerRoofline",
    "KindTable",
    "Roofline",
    "TargetProfile",
    "check_profile",
    "describe_host",
    "differences",
    "is_arm",
    "list_targets",
    "load_target",
    "own_targets",
    "targets_folder",
    "to_toml",
]
