"""Open the store that an address names, with what its optional library needs."""

from __future__ import annotations

from collections.abc import Mapping

from ksql_lake.base.errors import ConfigError
from ksql_lake.store.remote.address import Address
from ksql_lake.store.remote.seam import ObjectStore


def connect(address: Address, env: Mapping[str, str]) -> ObjectStore:
    """A store, without a request to it yet.

    Args:
        env: where AZURE_STORAGE_... are read from; boto3 reads AWS_... from the process's own environment.

    Raises:
        ConfigError: the optional library is not installed, or the environment names no account.
    """
    try:
        if address.scheme == "s3":
            from ksql_lake.store.remote.s3 import S3Store

            return S3Store.open(address)
        from ksql_lake.store.remote.azure import AzureStore

        return AzureStore.open(address, env)
    except ModuleNotFoundError as error:
        name = "requirements-s3.txt" if address.scheme == "s3" else "requirements-azure.txt"
        raise ConfigError(f"{address.url} needs {error.name}; install it with: pip install -r {name}") from None
