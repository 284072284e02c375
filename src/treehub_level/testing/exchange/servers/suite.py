"""The suite to which the modules of this package add their scenarios."""

from typing import Final

from ..scenarios import ScenarioSuite
from .scene import ServerScene

SUITE: Final[ScenarioSuite[ServerScene]] = ScenarioSuite()
