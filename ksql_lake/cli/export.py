"""Export ksqlDB streams and tables into the data lake.

Streams are appended to year=/month=/day= partitions, every event exactly once; tables become a new
version=vN snapshot, complete or not there. A run may be killed or repeated at any point: the next one
finishes or repeats what is missing.

exit codes: 0 all done; 1 a feed failed or left a finding (the others are committed); 2 nothing
attempted: usage or configuration; 3 another run holds the lock; 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

from ksql_lake.cli import export_options
from ksql_lake.cli.hints import guards_output


@guards_output
def main(argv: Sequence[str] | None = None) -> int:
    args = export_options.parser(__doc__).parse_args(argv)
    from ksql_lake.cli import exporting  # loads Arrow, for which --help does not wait

    return exporting.run(args)
