from tlscale.api import Plan as Plan
from tlscale.api import Recipe as Recipe
from tlscale.api import Run as Run
from tlscale.api import evaluate as evaluate
from tlscale.api import plan as plan
from tlscale.api import run as run

__version__: str
