"""``python -m benchmarks``: measures Backline beside its peers. Run it from the project's root; see README.md."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks import footprint, profile_request, report
from benchmarks.contenders import BARE_LOOP, CONTENDERS
from benchmarks.environments import HERE, NAMES, PROJECT, Environments, set_up
from benchmarks.errors import BenchmarkError
from benchmarks.run import Plan, read, remaining, run
from benchmarks.scenarios import GROUPS, SCENARIOS, select
from benchmarks.server import Place, check_tools

_NOT_FINISHED = 3
_FOLDER = PROJECT / "build" / "benchmarks"

_EPILOG = """
The whole of it:

  python -m benchmarks setup                   environments, once (about 10 GB)
  python -m benchmarks run                     everything, five rounds
  python -m benchmarks profile                 where the time of one request goes
  python -m benchmarks report                  docs/benchmarks.md, from the results

Does it work here, in some minutes:

  python -m benchmarks run --quick --results /tmp/quick.jsonl
"""


def main() -> int:
    """Read the command line and do what it says; return the exit code."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that servers are stopped, too
    try:
        return int(arguments.do(arguments))
    except BenchmarkError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    setup = commands.add_parser("setup", help="make the environments", description=_set_up.__doc__)
    setup.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    setup.add_argument("--python", default=sys.executable, help="interpreter for them (default: this one)")
    setup.set_defaults(do=_set_up)

    measure = commands.add_parser("run", help="measure", description=_run.__doc__)
    measure.add_argument(
        "--scenarios",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"scenarios ({', '.join(name for name in SCENARIOS if not name.startswith('growth-'))}, growth-N) "
        f"or groups of them ({', '.join(GROUPS)}); default: all",
    )
    measure.add_argument(
        "--contenders",
        nargs="+",
        default=[],
        metavar="NAME",
        help="contenders by name or environment, or main: the best configuration of each; default: all. "
        + "; ".join(CONTENDERS),
    )
    measure.add_argument("--rounds", type=int, default=5)
    measure.add_argument("--seconds", type=float, default=3, help="length of one measurement under load (default 3)")
    measure.add_argument("--quick", action="store_true", help="one round of one second, to see whether it all works")
    measure.add_argument(
        "--stop-after",
        type=float,
        metavar="SECONDS",
        help="begin nothing that would end later, and exit with 3 if something is left; the same command goes on there",
    )
    measure.add_argument("--plan", action="store_true", help="only tell what is to be measured, and for about how long")
    measure.set_defaults(do=_run)

    profile = commands.add_parser(
        "profile", help="where the time of one request goes", description=profile_request.__doc__
    )
    profile.add_argument("--clients", type=int, nargs="+", default=[1, 32, 128])
    profile.add_argument("--rounds", type=int, default=5)
    profile.add_argument("--seconds", type=float, default=3)
    profile.set_defaults(do=_profile)

    writing = commands.add_parser("report", help="write the page of the documentation", description=_report.__doc__)
    writing.add_argument(
        "--score-results", type=Path, default=_FOLDER / "score.jsonl", help="lines of score.py, if any"
    )
    writing.add_argument("--docs", type=Path, default=PROJECT / "docs", help="where to write (default: docs)")
    writing.add_argument("--notes", type=Path, default=HERE / "notes.md", help="what is said of each aim missed")
    writing.add_argument("--no-plots", action="store_true", help="tables only: no environment 'report' needed")
    writing.set_defaults(do=_report)

    weighing = commands.add_parser(
        "footprint", help="command line, imports, idle memory and packages", description=footprint.__doc__
    )
    weighing.add_argument("--docs", type=Path, default=PROJECT / "docs", help="where to write (default: docs)")
    weighing.set_defaults(do=_footprint)

    for command in (setup, measure, profile, writing, weighing):
        command.add_argument(
            "--environments",
            type=Path,
            default=_FOLDER / "environments",
            metavar="FOLDER",
            help="where the environments are, one folder each (default: build/benchmarks/environments)",
        )
        command.add_argument(
            "--environment",
            action="append",
            default=[],
            metavar="NAME=FOLDER",
            help="use this virtual environment for one of them; may be repeated",
        )
    for command in (measure, profile, writing):
        command.add_argument(
            "--results",
            type=Path,
            default=_FOLDER / "results.jsonl",
            help="lines of JSON; what it has already is not measured again (default: build/benchmarks/results.jsonl)",
        )
    for command in (measure, profile, weighing):
        command.add_argument("--data", type=Path, default=_FOLDER / "data", help="models and bodies; made when missing")
    return parser


def _set_up(arguments: argparse.Namespace) -> int:
    """Make a virtual environment for the server, one for the model, one for each peer, one for the plots.

    Packages come from wherever pip takes them; uv is used when it is on the PATH. One that is there already is made
    again only when its requirements have changed, and the server's with each commit.
    """
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        raise BenchmarkError(f"no environment is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    elsewhere = _elsewhere(arguments)
    wanted = [name for name in arguments.names or NAMES if name not in elsewhere]
    set_up(wanted, arguments.environments, arguments.python)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    """Measure the scenarios, the contenders taking turns, and append every figure to the results.

    Nothing else should run on the machine meanwhile. What is interrupted, or stopped with --stop-after, goes on when
    the command is given again.
    """
    try:
        scenarios = select(arguments.scenarios)
    except KeyError as exc:
        raise BenchmarkError(f"no scenario or group is called {exc.args[0]!r}; --help lists them") from exc
    plan = Plan(
        scenarios=scenarios,
        contenders=_contenders(arguments.contenders),
        rounds=1 if arguments.quick else arguments.rounds,
        seconds=1 if arguments.quick else arguments.seconds,
        results=arguments.results,
        stop_after=arguments.stop_after,
    )
    if arguments.plan:
        sessions = list(remaining(plan, read(plan.results)))
        for session in sessions:
            print(f"round {session.round}  {session.contender}: {', '.join(session.scenarios)}")
        print(f"about {sum(session.estimate(plan.seconds) for session in sessions) / 60:.0f} minutes")
        return 0
    check_tools()
    return 0 if run(plan, _place(arguments)) else _NOT_FINISHED


def _profile(arguments: argparse.Namespace) -> int:
    check_tools()
    profile_request.run(
        _place(arguments),
        clients=arguments.clients,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        results=arguments.results,
    )
    return 0


def _footprint(arguments: argparse.Namespace) -> int:
    footprint.run(_place(arguments), arguments.docs)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    """Write docs/benchmarks.md, its plots and the raw lines beside it, from the results that there are."""
    lines = read(arguments.results)
    if not lines:
        raise BenchmarkError(f"{arguments.results} has no results; measure first: python -m benchmarks run")
    python = None if arguments.no_plots else _environments(arguments).python("report")
    report.write(
        lines,
        score_lines=read(arguments.score_results),
        docs=arguments.docs,
        notes=arguments.notes.read_text() if arguments.notes.exists() else "",
        plot_python=python,
    )
    return 0


def _contenders(words: list[str]) -> list[str]:
    """Return the contenders that are meant, in the order of the table, our yardstick first."""
    everybody = [BARE_LOOP, *CONTENDERS]
    if not words:
        return everybody
    chosen = set()
    for word in words:
        # A name is that contender alone, also where an environment is called the same.
        found = [word] if word in everybody else [name for name in everybody if _is_of(name, word)]
        if not found:
            raise BenchmarkError(f"no contender or environment is called {word!r}; --help lists them")
        chosen.update(found)
    return [name for name in everybody if name in chosen]


def _is_of(name: str, group: str) -> bool:
    """Say whether a contender is of an environment, or one of ``main``; the yardstick is always one of ``main``."""
    if name == BARE_LOOP:
        return group == "main"
    contender = CONTENDERS[name]
    return group == contender.environment or (group == "main" and contender.main)


def _environments(arguments: argparse.Namespace) -> Environments:
    return Environments(arguments.environments, _elsewhere(arguments))


def _elsewhere(arguments: argparse.Namespace) -> dict[str, Path]:
    elsewhere = {}
    for word in arguments.environment:
        name, found, folder = word.partition("=")
        if not found or name not in NAMES:
            raise BenchmarkError(f"--environment {word}: give NAME=FOLDER, with NAME one of {', '.join(NAMES)}")
        elsewhere[name] = Path(folder)
    return elsewhere


def _place(arguments: argparse.Namespace) -> Place:
    environments, data = _environments(arguments), arguments.data.absolute()
    if not (data / "prepared.json").exists():
        print(f"making models and bodies in {data}", file=sys.stderr, flush=True)
        subprocess.run([environments.python("model"), HERE / "prepare.py", data], check=True)
    return Place(environments, data, data / "work")


if __name__ == "__main__":
    sys.exit(main())
