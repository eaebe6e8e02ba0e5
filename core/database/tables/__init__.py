"""All tables; importing this fills the metadata."""

from core.database.tables.audit import AuditEntry
from core.database.tables.base import Base, utc_now
from core.database.tables.deployments import Deployment, DeploymentHistory, DeploymentStatus
from core.database.tables.derived import DerivedArtifact
from core.database.tables.imports import Import
from core.database.tables.models import Model, Version
from core.database.tables.optimisations import Optimisation
from core.database.tables.revisions import Revision
from core.database.tables.samples import Sample
from core.database.tables.tokens import AccessToken
from core.database.tables.users import Session, User

__all__ = [
    "AccessToken",
    "AuditEntry",
    "Base",
    "Deployment",
    "DeploymentHistory",
    "DeploymentStatus",
    "DerivedArtifact",
    "Import",
    "Model",
    "Optimisation",
    "Revision",
    "Sample",
    "Session",
    "User",
    "Version",
    "utc_now",
]
