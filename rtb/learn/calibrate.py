"""Platt scaling: a slope and a shift that turn held-out logits into honest probabilities."""

from typing import Final

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]

# Belief that the model is right as it is, counted in held-out positives. The shift is what training
# gets right by itself; the slope is what overfitting spoils, so that little evidence may move it.
SHIFT_PRIOR: Final = 100.0
SLOPE_PRIOR: Final = 5.0
# A slope at or below 0 would turn the ranking around.
SLOPE_MIN, SLOPE_MAX = 0.05, 5.0
STEPS: Final = 50


def platt(logits: Doubles, labels: Labels, weights: Doubles) -> tuple[float, float]:
    """(slope, shift) with p = sigmoid(slope * logit + shift), by Newton's method.

    Shapes: (n,) each. Fitted as slope * (logit - centre) + centre + move, where the centre is the
    mean logit, so that neither parameter does the other's work; a penalty draws slope to 1 and
    move to 0, which is also the answer for no rows.
    """
    if not len(logits):
        return 1.0, 0.0
    centre = float(np.average(logits, weights=weights))
    inputs = np.stack([logits - centre, np.ones_like(logits)], axis=1)
    identity, prior = np.array([1.0, 0.0]), np.array([SLOPE_PRIOR, SHIFT_PRIOR])
    parameters = identity
    for _ in range(STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(centre + inputs @ parameters, -30.0, 30.0)))
        gradient = inputs.T @ (weights * (p - labels)) + prior * (parameters - identity)
        curvature = (inputs * (weights * p * (1.0 - p))[:, None]).T @ inputs
        step = np.linalg.solve(curvature + np.diag(prior), gradient)
        parameters = parameters - np.clip(step, -1.0, 1.0)
        if float(np.abs(step).max()) < 1e-10:
            break
    slope = float(np.clip(parameters[0], SLOPE_MIN, SLOPE_MAX))
    return slope, centre * (1.0 - slope) + float(parameters[1])
