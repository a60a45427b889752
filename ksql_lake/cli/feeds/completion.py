"""`manage_feeds.py completion`: a completion script for bash."""

from __future__ import annotations

import argparse
import shlex

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.cli import context
from ksql_lake.cli.feeds import COMMANDS


def run(config: Config, args: argparse.Namespace) -> int:
    words = " ".join(sorted(COMMANDS))
    directory = shlex.quote(str(context.active(config)))
    print(f"""_manage_feeds() {{
  local names=$(cd {directory} 2>/dev/null && ls *.json 2>/dev/null | sed 's/[.]json$//')
  COMPREPLY=($(compgen -W "$([ $COMP_CWORD -le ${{_manage_feeds_at:-2}} ] && echo {words} || echo $names)" -- \
    "${{COMP_WORDS[COMP_CWORD]}}"))
}}
_python_manage_feeds() {{
  case "${{COMP_WORDS[1]}}" in *manage_feeds.py) _manage_feeds_at=2 _manage_feeds;; *) COMPREPLY=($(compgen -f -- \
    "${{COMP_WORDS[COMP_CWORD]}}"));; esac
}}
_script_manage_feeds() {{ _manage_feeds_at=1 _manage_feeds; }}
complete -F _python_manage_feeds python python3
complete -F _script_manage_feeds manage_feeds.py ./manage_feeds.py""")
    return ExitCode.OK
