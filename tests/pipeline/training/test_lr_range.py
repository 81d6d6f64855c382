"""The range test ends where the loss explodes; usable are rates between two rules of thumb."""

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline.__main__ import main
from pipeline.base.errors import SlidemillError
from pipeline.training.lr_range import smooth, try_rates, usable_range
from pipeline.training.step import NotFiniteError
from tests.support.training import NETWORK, Project


class Scripted:
    """A learner whose loss is a list, and whose rates are kept."""

    def __init__(self, losses):
        self.losses, self.rates = iter(losses), []

    def step(self, _, *, rate, number):
        assert number == len(self.rates)
        self.rates.append(rate)
        loss = next(self.losses)
        if not np.isfinite(loss):
            raise NotFiniteError("no number")
        return {"loss": loss}


@pytest.mark.parametrize("explosion", [1e9, float("nan")])
def test_the_test_ends_where_the_loss_explodes(explosion):
    learner = Scripted([1.0, 0.9, 0.8, explosion, 0.1])
    tried = try_rates(learner, iter([[]] * 9), [1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert learner.rates == [1e-4, 1e-3, 1e-2, 1e-1]
    assert tried[:3] == [1.0, 0.9, 0.8]


def test_the_running_mean_by_hand():
    np.testing.assert_allclose(smooth([1.0, 2.0]), [1.0, (0.9 * 0.1 + 0.1 * 2) / 0.19])


def test_usable_rates_are_between_the_steepest_fall_and_a_tenth_of_the_lowest_loss():
    """A slope at 1e-3 (a little later once smoothed), the lowest loss at 1e-1, an explosion after it."""
    rates = np.geomspace(1e-6, 1, 200)
    losses = 1 / (1 + (rates / 1e-3) ** 2) + 5 * (rates > 0.1)
    lowest, highest = usable_range(rates, losses)
    assert 1e-3 < lowest < 5e-3
    assert highest == pytest.approx(0.1 / 10, rel=0.07)  # a step of the rates


def test_a_range_is_at_most_a_factor_of_ten():
    """The loss falls up to the last rate, 1."""
    rates = np.geomspace(1e-6, 1, 200)
    lowest, highest = usable_range(rates, 1 / (1 + (rates / 1e-3) ** 2))
    assert lowest < 5e-3
    assert highest == 10 * lowest


def test_a_loss_that_never_falls_is_an_error():
    with pytest.raises(SlidemillError, match="the loss never falls"):
        usable_range([1e-3, 1e-2, 1e-1], [1.0, 2.0, 3.0])


@pytest.mark.slow
def test_the_command_prints_the_rates_and_draws_the_test(in_folder, capsys):
    maps = in_folder / Project(in_folder).weight_maps
    maps.rename(in_folder / "moved")
    content = {"training": {"images": "images", "labels": "labels"}, "models": {"unet": NETWORK.model_dump()}}
    (in_folder / "config.yaml").write_text(yaml.safe_dump(content))
    words = ["find-lr", "--model", "unet", "--settings", "config.yaml", "--steps", "40", "--threads", "1"]
    assert main(words) == 1
    assert "no weight map of a; run snakemake" in capsys.readouterr().err.splitlines()[-1]
    (in_folder / "moved").rename(maps)
    assert main(words) == 0
    lowest, highest = map(float, capsys.readouterr().out.removeprefix("learning_rate: ").split(" to "))
    assert 1e-6 <= lowest <= highest <= 1
    table = pd.read_csv(in_folder / "results" / "find-lr" / "unet.csv")
    assert list(table) == ["learning_rate", "loss", "smoothed"]
    assert (in_folder / "results" / "find-lr" / "unet.svg").read_text().startswith("<?xml")
