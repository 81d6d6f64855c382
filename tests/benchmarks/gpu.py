"""What a GPU does with Slidemill, in some six minutes: ``make bench-gpu``; on a processor, the same with small sizes.

A slide and a plate against bare passes of their windows (``of_bare``; ``network_share`` is how busy the device was), a
slide against MONAI, training steps against bare ones, and a training on real nuclei. Every figure is a JSON line; at
the end is a table for the README. ``--tiny`` only shows that the script runs.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import torch

from pipeline.runtime.device import computes_tf32, is_faster_in_bfloat16
from tests.benchmarks import predict, sliding_window, steps
from tests.benchmarks.common import by_time, run_example, say, say_machine, set_up

# Sides of the slides in px, fields, width of the network, minutes to train for the comparison with MONAI and for nuclei
FULL, SMALL, TINY = (8192, 4096, 500, 32, 0.5, 2), (2048, 2048, 100, 32, 0.5, 2), (512, 1024, 4, 4, 0.02, 0)


def main(*arguments: str) -> None:
    """Print the machine, every figure, and the table."""
    on_gpu = torch.cuda.is_available()
    side, against_monai, fields, width, minutes, of_nuclei = (
        TINY if "--tiny" in arguments else FULL if on_gpu else SMALL
    )
    found = Lines()
    with redirect_stdout(found):
        say_machine()
        sliding_window.bench(against_monai, minutes, width=width)
        device = set_up()
        precisions = ["float32"] + ["bfloat16"] * is_faster_in_bfloat16(device)
        for precision in precisions + ["tf32"] * computes_tf32(device):
            predict.bench(device, side=side, fields=fields, width=width, precision=precision)
        for precision in precisions:
            of_network = {"options": {"width": width}, "patch_px": 256 if of_nuclei else 64}
            steps.bench_step(steps.annotated(), precision, device, **of_network)
        if of_nuclei:
            with tempfile.TemporaryDirectory() as folder:
                shown = ["foreground_dice", "objects_f1_50"]
                scores = run_example(Path(folder), "dsb2018", by_time(of_nuclei), shown)
                say("dsb2018", minutes=of_nuclei, **scores["unet"])
    print(table(found.figures))


class Lines(io.TextIOBase):
    """Standard output that is also kept, as figures."""

    def __init__(self) -> None:
        self.figures: list[dict[str, object]] = []
        self._out = sys.stdout

    def write(self, text: str) -> int:
        """Print text, and keep it if it is a figure; each is printed at once."""
        if text.startswith("{"):
            self.figures.append(json.loads(text))
        return self._out.write(text)

    def flush(self) -> None:
        """Print what is buffered."""
        self._out.flush()


def table(figures: list[dict[str, object]]) -> str:
    """Return the figures that matter as a table in Markdown."""
    rows = ["| figure | precision | speed | device busy | of the bare network |", "|---|---|---|---|---|"]
    for figure in figures:
        about, precision = figure["figure"], figure.get("precision", "")
        if about in ("predict", "fields"):
            speed = f"{figure['mpx_per_s']} Mpx/s"
            rows.append(f"| {about} | {precision} | {speed} | {figure['network_share']} | {figure['of_bare']} |")
        elif about == "step":
            rows.append(f"| step | {precision} | {figure['ms']} ms | | {1 / float(str(figure['ratio'])):.3g} |")
        elif about == "sliding_window" and "skipped" not in figure:
            rows.append(f"| against MONAI | {precision} | {figure['times_as_fast_as_default']} times | | |")
    return "\n".join(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
