"""The engine on a Ray cluster; `tagger.inference.engine` opens it."""

import os

RAY_ENVIRONMENT = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # else stdout names dead workers, between our rows
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # a run that stops does not wait for its tasks
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Ray reads these when it is imported. They silence messages; the report has what a user needs."""

os.environ.update(
    {name: value for name, value in RAY_ENVIRONMENT.items() if name not in os.environ}
)
