"""The cells of a notebook: export, look at what is there, read it. Run it whole, or cell by cell (`# %%`)."""

# %% What there is
import datetime as dt

import pandas as pd

import ksql_lake

pd.DataFrame(ksql_lake.feeds())

# %% Take what is new in ksqlDB
results = pd.DataFrame(ksql_lake.export(["transaction_flattened", "payment_method_totals"]))
print(results[["feed", "result", "rows", "seconds"]])

# %% Does anything need attention?
report = pd.DataFrame(ksql_lake.report())
print(report[["feed", "state", "rows", "newest", "findings"]])

# %% Read one day of a stream, three columns of it
day = dt.date.fromisoformat(report.set_index("feed").loc["transaction_flattened", "newest"])
sales = ksql_lake.read(
    "transaction_flattened",
    filters=[("year", "=", day.year), ("month", "=", day.month), ("day", "=", day.day)],
    columns=["COUNTRY", "CURRENCY", "AMOUNT"],
)
print(sales.groupby(["COUNTRY", "CURRENCY"])["AMOUNT"].agg(["count", "sum"]))

# %% The current version of a table
totals = ksql_lake.read("payment_method_totals")
print(totals)
