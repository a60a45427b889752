"""An Airflow DAG that exports every feed by night, each as a task of its own, and then asks for the report.

Put it into your dags/ directory. The workers need the package (`pip install .` in a clone) and a lake that all of them
see. An export may be killed or tried again at any point: no row is doubled or lost.
"""

from __future__ import annotations

import datetime as dt
import os

import ksql_lake

LAKE = os.environ.get("DATA_LAKE_DIR", "/srv/data_lake")
SETTINGS = {"KSQLDB_URL": os.environ.get("KSQLDB_URL", "http://ksqldb:8088")}


def export_feed(name: str) -> int:
    """Export one feed; the number of rows. A feed that failed fails the task."""
    (result,) = ksql_lake.export([name], lake=LAKE, settings=SETTINGS)
    if result["result"] not in ("ok", "findings"):
        raise RuntimeError("; ".join(result["messages"]))
    return int(result["rows"])


def check_report() -> list[str]:
    """What needs attention, feed by feed; an error fails the task."""
    findings = [
        f"{feed['feed']}: {finding['message']}"
        for feed in ksql_lake.report(lake=LAKE) for finding in feed["findings"] if finding["level"] == "error"
    ]
    if findings:
        raise RuntimeError("\n".join(findings))
    return findings


def feed_names() -> list[str]:
    """The feeds as they are when the DAG is parsed: reads small JSON files only."""
    return [feed["name"] for feed in ksql_lake.feeds(lake=LAKE) if feed["state"] == "active"]


try:
    try:
        from airflow.sdk import dag, task
    except ImportError:  # Airflow 2
        from airflow.decorators import dag, task
except ImportError:  # read or tested where there is no Airflow
    pass
else:

    @dag(schedule="0 2 * * *", start_date=dt.datetime(2025, 1, 1), catchup=False, max_active_runs=1)
    def ksql_lake_export():
        export = task(retries=2)(export_feed)
        exported = [export.override(task_id=f"export_{name}")(name) for name in feed_names()]
        exported >> task(trigger_rule="all_done")(check_report)()

    ksql_lake_export()
