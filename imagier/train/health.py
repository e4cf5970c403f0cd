"""Verdicts: what readings of a run mean, in words: "discriminator saturated since iteration 12,400"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Reading = Mapping[str, float]

IN_A_ROW = 3
"""How many readings must agree before a verdict is given, and before it is taken back."""

REAL_ACCURACY = "health/real_accuracy"
FAKE_ACCURACY = "health/fake_accuracy"
LOGITS_GAP = "health/logits_gap"
DIVERSITY = "health/diversity"
NEAREST = "health/nearest_training_image"


@dataclass(frozen=True)
class Sign:
    """Something that may be wrong with a run."""

    name: str
    is_shown: Callable[[Reading], bool]
    explain: Callable[[Reading], str]
    """What is wrong, and what usually helps."""


def tag_update_ratio(player: str) -> str:
    """The tag of the share of a player's weights that an update changes."""
    return f"health/{player}_update_ratio"


def _build_stillness_sign(player: str) -> Sign:
    key = tag_update_ratio(player)
    return Sign(
        f"{player} has not moved",
        lambda r: r.get(key, 1) == 0,
        lambda r: (
            "updates do not change its weights: do its losses depend on them (is an output detached, or computed under "
            f"no_grad?), and is {player}_opt.lr more than 0?"
        ),
    )


def _build_jump_sign(player: str) -> Sign:
    key = tag_update_ratio(player)
    return Sign(
        f"{player} jumps",
        lambda r: r.get(key, 0) > 0.1,
        lambda r: f"each update changes its weights by {r[key]:.0%}; lower {player}_opt.lr",
    )


SIGNS = (
    Sign(
        "discriminator saturated",
        lambda r: min(r.get(REAL_ACCURACY, 0), r.get(FAKE_ACCURACY, 0)) >= 0.99,
        lambda r: (
            f"it knows {min(r[REAL_ACCURACY], r[FAKE_ACCURACY]):.0%} of real and generated images, the generator "
            "learns little from it; a smaller dis_opt.lr, a gradient penalty or DiffAugment helps"
        ),
    ),
    Sign(
        "discriminator lost",
        lambda r: r.get(REAL_ACCURACY, 1) + r.get(FAKE_ACCURACY, 1) <= 1.02,
        lambda r: "it cannot tell real from generated images at all; a larger dis_opt.lr or dis_step helps",
    ),
    Sign(
        "samples collapsed",
        lambda r: r.get(DIVERSITY, 1) < 0.1,
        lambda r: (
            f"diversity {r[DIVERSITY]:.2g} of its largest: different inputs give nearly the same image; go back to "
            "an earlier checkpoint, with smaller learning rates"
        ),
    ),
    Sign(
        "samples copied",
        lambda r: r.get(NEAREST, 1) < 0.3,
        lambda r: (
            f"they are {r[NEAREST]:.2g} times as far from training images as held-out images are; more data, or "
            "augmentation, helps"
        ),
    ),
)
"""Those of the images and the discriminator; the weights of each player have one, too."""


@dataclass
class _Course:
    """For how long a sign has been shown, or not."""

    since: int | None = None
    """The iteration of the first of the readings that show it; None if there is no verdict."""
    first: int = 0
    showing: int = 0
    missing: int = 0


class Verdicts:
    """Turns a series of readings into verdicts."""

    def __init__(self, players: Sequence[str]) -> None:
        """players: those of the run."""
        of_players = (build(player) for player in players for build in (_build_jump_sign, _build_stillness_sign))
        self._signs = (*SIGNS, *of_players)
        self._courses = {sign.name: _Course() for sign in self._signs}
        self._best: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def read(self, step: int, raw: Reading, *, counts_as: int = 1) -> tuple[dict[str, float], list[str]]:
        """One reading -> the same, and the verdicts that begin or end with it.

        The diversity becomes a share of the largest so far. counts_as: how many readings it stands for.
        """
        reading = dict(raw)
        if DIVERSITY in reading:
            self._best[DIVERSITY] = max(self._best.get(DIVERSITY, 0.0), reading[DIVERSITY])
            reading[DIVERSITY] /= self._best[DIVERSITY] or 1.0
        self._last = reading
        lines = []
        for sign in self._signs:
            lines += self._follow(sign, self._courses[sign.name], step, reading, counts_as)
        return reading, lines

    def _follow(self, sign: Sign, course: _Course, step: int, reading: Reading, count: int) -> list[str]:
        if sign.is_shown(reading):
            course.first = step if course.showing == 0 else course.first
            course.showing, course.missing = course.showing + count, 0
            if course.since is None and course.showing >= IN_A_ROW:
                course.since = course.first
                return [f"{sign.name} since iteration {course.since:,}: {sign.explain(reading)}"]
            return []
        course.showing, course.missing = 0, course.missing + 1
        if course.since is not None and course.missing >= IN_A_ROW:
            course.since = None
            return [f"{sign.name}: no longer, at iteration {step:,}"]
        return []

    def list_standing(self) -> list[str]:
        """The verdicts that hold now."""
        courses = [(sign, self._courses[sign.name].since) for sign in self._signs]
        return [
            f"{sign.name} since iteration {since:,}: {sign.explain(self._last)}"
            for sign, since in courses
            if since is not None and sign.is_shown(self._last)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to continue."""
        courses = {name: vars(course).copy() for name, course in self._courses.items()}
        return {"courses": courses, "best": dict(self._best), "last": dict(self._last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` returned."""
        for name, course in state["courses"].items():
            if name in self._courses:
                self._courses[name] = _Course(**course)
        self._best, self._last = dict(state["best"]), dict(state["last"])
