"""`python -m triptych_trainer.cli`."""

from . import main

main()
