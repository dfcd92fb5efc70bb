"""The engine on a Ray cluster; `engine` is its door."""

import os

RAY_ENVIRONMENT = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # a worker's death would be told on stdout, between our rows
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of work that a stopped run does not wait for
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Ray looks at these when it is imported. What of its news a run has use for is in its report."""

os.environ.update(
    {name: value for name, value in RAY_ENVIRONMENT.items() if name not in os.environ}
)
