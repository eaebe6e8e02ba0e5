from tests.databases import bare_database_url, database_url

__all__ = ["bare_database_url", "database_url"]
