"""A lifecycle rule for the bucket, from the feeds' own settings; printed, never applied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ksql_lake.model.feeds import Feed
from ksql_lake.store.remote.address import LEAST_BYTES, Address


def rules(address: Address, feeds: Sequence[Feed]) -> str:
    """The rule as JSON in the cloud's own form. It covers only data files: metadata must stay readable at once.

    The bucket counts days from the upload, not from the day of the events.
    """
    tiered = [feed for feed in feeds if feed.remote_tier in address.tiers and feed.tier_after_days]
    made = _s3(address, tiered) if address.scheme == "s3" else _azure(address, tiered)
    return json.dumps(made, indent=2)


def _prefix(address: Address, feed: Feed) -> str:
    return address.name(f"{feed.type}s/{feed.name}/{'year=' if feed.type == 'stream' else 'version='}")


def _s3(address: Address, feeds: Sequence[Feed]) -> dict[str, Any]:
    parts = {
        "ID": "ksql-lake-interrupted-uploads", "Status": "Enabled", "Filter": {"Prefix": address.name("")},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2},
    }
    moved = [
        {
            "ID": f"ksql-lake-{feed.name}", "Status": "Enabled",
            "Filter": {"And": {"Prefix": _prefix(address, feed), "ObjectSizeGreaterThan": LEAST_BYTES}},
            "Transitions": [{"Days": feed.tier_after_days, "StorageClass": feed.remote_tier}],
        }
        for feed in feeds
    ]
    return {"Rules": [parts, *moved]}


def _azure(address: Address, feeds: Sequence[Feed]) -> dict[str, Any]:
    def rule(feed: Feed) -> dict[str, Any]:
        move = {f"tierTo{feed.remote_tier}": {"daysAfterCreationGreaterThan": feed.tier_after_days}}
        where = {"blobTypes": ["blockBlob"], "prefixMatch": [f"{address.bucket}/{_prefix(address, feed)}"]}
        return {
            "enabled": True, "name": f"ksql-lake-{feed.name}", "type": "Lifecycle",
            "definition": {"actions": {"baseBlob": move}, "filters": where},
        }

    return {"rules": [rule(feed) for feed in feeds]}


def how_to_apply(address: Address) -> str:
    """The command of the cloud that applies the rule."""
    if address.scheme == "s3":
        return (
            "this rule replaces the bucket's own: add the existing rules to it, then apply it with: "
            f"aws s3api put-bucket-lifecycle-configuration --bucket {address.bucket} --lifecycle-configuration "
            "file://rules.json"
        )
    return (
        "this policy replaces the account's own: add the existing rules to it, then apply it with: "
        "az storage account management-policy create --policy @rules.json --account-name ACCOUNT --resource-group GROUP"
    )
