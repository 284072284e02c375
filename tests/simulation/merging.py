"""The mergers of simulated clients: they settle losses at random."""

from __future__ import annotations

import random

from .invariants import ExpectedClient
from .sides import JOURNAL, KEEP_SERVER, SWEPT, Content, Loss


class RandomMerger:
    """Settles the losses of one client, and records its answers.

    Args:
        name: The client.
        expected: Its expected state, which counts its writes.
        share: The share of losses that are settled.
        rng: Makes all random decisions.

    Attributes:
        answers: The losses and the answers since `take`.
        is_stubborn: True to repair refused changes, however often the server refuses them.
    """

    def __init__(self, name: str, expected: ExpectedClient, share: float, rng: random.Random) -> None:
        self._name = name
        self._expected = expected
        self._share = share
        self._rng = rng
        self.answers: list[tuple[Loss, Content | str]] = []
        self.is_stubborn = False

    def __call__(self, loss: Loss) -> Content | str:
        answer: Content | str = JOURNAL
        if self._rng.random() < self._share:
            self._expected.count += 1
            written: Content = self._name, self._expected.count
            remote = KEEP_SERVER if loss.remote == SWEPT else loss.remote
            answer = self._rng.choice([written, written, written, loss.local, None, remote, KEEP_SERVER])
            if self.is_stubborn and loss.kind == "refused":
                answer = written
        self.answers.append((loss, answer))
        return answer

    def take(self) -> list[tuple[Loss, Content | str]]:
        """Return and forget the answers."""
        answers, self.answers = self.answers, []
        return answers
