"""All tables; importing this fills the metadata."""

from core.database.tables.access_rules import AccessRule
from core.database.tables.audit import AuditEntry, AuditHead
from core.database.tables.base import Base, utc_now
from core.database.tables.defaults import DefaultTarget
from core.database.tables.deployments import Deployment, DeploymentHistory, DeploymentStatus
from core.database.tables.derived import DerivedArtifact
from core.database.tables.history import HistoryRow
from core.database.tables.imports import Import
from core.database.tables.models import Model, ModelTag, Version
from core.database.tables.nodes import Node
from core.database.tables.optimisations import Optimisation
from core.database.tables.pipelines import Pipeline, PipelineDeployment, PipelineVersion
from core.database.tables.revisions import Revision
from core.database.tables.samples import Sample
from core.database.tables.tenants import DEFAULT_TENANT, Tenant
from core.database.tables.tokens import AccessToken
from core.database.tables.usage import UsageRow
from core.database.tables.users import RecoveryCode, Session, User

__all__ = [
    "DEFAULT_TENANT",
    "AccessRule",
    "AccessToken",
    "AuditEntry",
    "AuditHead",
    "Base",
    "DefaultTarget",
    "Deployment",
    "DeploymentHistory",
    "DeploymentStatus",
    "DerivedArtifact",
    "HistoryRow",
    "Import",
    "Model",
    "ModelTag",
    "Node",
    "Optimisation",
    "Pipeline",
    "PipelineDeployment",
    "PipelineVersion",
    "RecoveryCode",
    "Revision",
    "Sample",
    "Session",
    "Tenant",
    "UsageRow",
    "User",
    "Version",
    "utc_now",
]
