"""Say how many samples of a run are done, failed and waiting; fail if one, or a network, failed."""

from __future__ import annotations

from pathlib import Path

from pipeline.base.errors import SlidemillError
from pipeline.base.files import write_text
from pipeline.project.summary import last_lines
from pipeline.settings.schema import Settings


def run(*, folder: Path, output: Path, config: Settings) -> None:
    """Write the last lines of a run.

    Parameters
    ----------
    folder : Path
        Folder of the report.
    output : Path
        Text file to write.
    config : Settings
        The whole configuration.

    Raises
    ------
    SlidemillError
        If a sample or a network failed.
    """
    text, failed = last_lines(folder, config)
    if failed:
        raise SlidemillError(f"{failed} samples or networks failed; the last lines of the run say why")
    write_text(output, text + "\n")
