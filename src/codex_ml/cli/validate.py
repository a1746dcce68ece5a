"""`codex-ml validate`: checks a configuration and runs nothing; also `python -m codex_ml.cli.validate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from codex_ml.cli.path_options import with_path_options
from codex_ml.errors import EXIT_USER_ERROR, CodexError, UserError
from codex_ml.io.terminal import open_standard_streams, write_message, write_result


@with_path_options
def validate_command(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Overrides; only with --config-name.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="File to validate: a complete configuration or one section."),
    ] = None,
    config_name: Annotated[
        str | None, typer.Option("--config-name", metavar="NAME", help="Config name, such as examples/minimal.")
    ] = None,
    config_dir: Annotated[
        Path | None, typer.Option("--config-dir", metavar="DIR", help="Directory of your own configs.")
    ] = None,
    *,
    paths: dict[str, Path],
) -> None:
    """Check a configuration: every key, type and bound, and the rules between them; all problems at once."""
    # Hydra and pydantic are imported here, so that --help of every command stays quick.
    from codex_ml.config.compose import compose
    from codex_ml.config.validate import ValidFile, validate_file, validate_train

    if (config is None) == (config_name is None):
        raise UserError(
            "validate needs exactly one of --config FILE and --config-name NAME", code="CLI_OPTIONS_CONFLICT"
        )
    if config is not None:
        if overrides or paths or config_dir is not None:
            raise UserError(
                "--config FILE takes neither overrides, nor paths, nor --config-dir",
                fix="name the configuration: --config-dir DIR --config-name NAME KEY=VALUE",
                code="CLI_OPTIONS_CONFLICT",
            )
        valid = validate_file(config)
    else:
        assert config_name is not None
        composed = compose(
            "train", config_name, config_dir, overrides or (), environment=os.environ, extra_values=paths
        )
        valid = ValidFile(None, validate_train(composed), composed)
    kind = f"the section {valid.section}" if valid.section is not None else "a whole configuration"
    write_result(f"valid: {config or config_name} ({kind}, {valid.value_count} values)")


def main(arguments: list[str] | None = None) -> int:
    """Run the command by itself and return its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process.
    """
    application = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    application.command(name="validate")(validate_command)
    try:
        application(args=arguments, prog_name="codex-ml validate", standalone_mode=True)
    except CodexError as error:
        write_message(error.block())
        return error.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    open_standard_streams()
    raise SystemExit(main())
