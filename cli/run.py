"""`cas run`."""

from pathlib import Path

import click

from cas.errors import InvalidInputError

from .session import Session, pass_session


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-e", "--experiment", help="Experiment of the run; the program's name by default.")
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="K=V",
    help="A param; K may be several names joined by dots. It overrides the config's.",
)
@click.option("--config", metavar="FILE", help="What the run follows: YAML, JSON or TOML.")
@click.option("--env", "environment", metavar="NAME", help="The environment of the config to take.")
@click.option("-i", "--input", "inputs", multiple=True, metavar="PATH", help="Data that goes in.")
@click.option("-o", "--output", "outputs", multiple=True, metavar="PATH", help="What comes out.")
@click.option("--metrics", metavar="FILE", help="JSON or CSV file that the program writes.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_session
def run(
    session: Session,
    *,
    experiment: str | None,
    params: tuple[str, ...],
    config: str | None,
    environment: str | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    metrics: str | None,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND and track it: its code, arguments, output, results.

    Write `cas run [OPTIONS] -- COMMAND...`. The exit code is the command's own. Without --config,
    the config is that of CAS_CONFIG or of `pyproject.toml`, if there is one. COMMAND finds what is
    in effect in the file that CAS_CONFIG names, or in Python by `cas.config()`.

    COMMAND has the terminal, and gets the signals. Of Ctrl-C the third one kills it.
    """
    from cas.tracking.execute import run_program
    from cas.tracking.program import Program, scalar
    from cas.tracking.record import run_volume
    from cas.tracking.settings.configfile import of_command

    from .params import pairs
    from .render import human_share

    if "" in (command[0], experiment, metrics, config, environment, *inputs, *outputs):
        raise InvalidInputError("an empty name: a variable may be unset where cas is called")
    session.note(f"running {' '.join(command)}")
    given = {key: scalar(value) for key, value in pairs(params, "-p")}
    program = Program(command, given, inputs, outputs, metrics)
    known = of_command(config, environment=environment, params=given)
    outcome = run_program(session.writing_or_new(), program, experiment, Path.cwd(), config=known)
    for problem in outcome.problems:
        session.say(f"cas: {problem}")
    if outcome.commit is not None:
        volume = run_volume(session.repo, outcome.commit)
        stored = f"stored {human_share(volume.stored_bytes, volume.given_bytes)}"
        told = (f"{outcome.run} is {outcome.commit.short}", _ended(outcome.exit_code), stored)
        session.say(f"cas: {', '.join(told)}")
    return outcome.exit_code if outcome.exit_code >= 0 else 128 - outcome.exit_code


def _ended(code: int) -> str:
    from signal import Signals

    if code >= 0:
        return f"exit code {code}"
    known = -code in {one.value for one in Signals}
    return f"ended by {Signals(-code).name if known else f'signal {-code}'}"
