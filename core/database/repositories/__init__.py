"""Every query lives in a repository, one noun a file."""

from core.database.repositories.audit import Audit
from core.database.repositories.defaults import DefaultTargets
from core.database.repositories.deployments import Deployments
from core.database.repositories.derived import DerivedArtifacts
from core.database.repositories.models import Models
from core.database.repositories.pipelines import Pipelines
from core.database.repositories.revisions import Revisions
from core.database.repositories.samples import Samples
from core.database.repositories.sessions import Sessions
from core.database.repositories.tenants import Tenants
from core.database.repositories.tokens import TokenRow, Tokens
from core.database.repositories.users import Users
from core.database.repositories.versions import Versions

__all__ = [
    "Audit",
    "DefaultTargets",
    "Deployments",
    "DerivedArtifacts",
    "Models",
    "Pipelines",
    "Revisions",
    "Samples",
    "Sessions",
    "Tenants",
    "TokenRow",
    "Tokens",
    "Users",
    "Versions",
]
