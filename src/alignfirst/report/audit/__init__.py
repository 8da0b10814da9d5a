"""The page of an audit, and what a study's page shows of audits."""
