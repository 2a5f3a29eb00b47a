"""SQSD: sample-level quantification of safety degradation in fine-tuning."""

import gc

__version__ = "0.1.0"

# Importing torch and transformers makes some 400,000 objects that live to the end; with the default
# threshold they are walked again and again on the way, for a second of every job.
gc.set_threshold(100_000, 50, 100)
