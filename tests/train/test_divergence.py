"""When a finite loss counts as a divergence, and when a short or slow run does not."""

import math

import pytest

from bench.train.divergence import explosion

BYTES = 256  # ln V = 5.55
DIVERGED = {
    "far above a uniform guess": (54.7, 5.56, 2.1, BYTES),
    "exploded in its first steps": (9.0, 5.6, None, BYTES),
    "lost most of what it had learned": (4.2, 5.6, 1.5, BYTES),
    "a large vocabulary": (14.0, 10.9, 3.3, 50_257),
}
SOUND = {
    "one step": (5.57, 5.57, None, BYTES),
    "one step of a wide model": (6.4, 6.4, None, BYTES),
    "a rate near 0": (5.56, 5.55, 5.54, BYTES),
    "a few noisy steps": (5.9, 5.5, None, BYTES),
    "ended at its best": (1.4, 5.6, 1.4, BYTES),
    "a rise late in training": (2.1, 5.6, 1.6, BYTES),
    "learned little and lost it": (5.5, 5.6, 4.9, BYTES),
}


@pytest.mark.parametrize(("loss", "first", "best", "vocabulary"), DIVERGED.values(), ids=DIVERGED)
def test_explosion_of_a_lost_run_says_why(loss, first, best, vocabulary):
    said = explosion(loss, first, best, vocabulary)
    assert f"{loss:.3g}" in said and "uniform guess" in said and "\n" not in said


@pytest.mark.parametrize(("loss", "first", "best", "vocabulary"), SOUND.values(), ids=SOUND)
def test_explosion_of_a_sound_run_is_none(loss, first, best, vocabulary):
    assert explosion(loss, first, best, vocabulary) is None


@pytest.mark.parametrize("vocabulary", [256, 512, 16_384, 50_257])
def test_explosion_threshold_follows_the_vocabulary(vocabulary):
    uniform = math.log(vocabulary)
    assert explosion(uniform + 0.49, uniform, None, vocabulary) is None
    assert explosion(uniform + 0.51, uniform, None, vocabulary) is not None
