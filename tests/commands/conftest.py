"""The same job as for the pipelines."""

from tests.pipelines.conftest import job  # noqa: F401  (a fixture)
