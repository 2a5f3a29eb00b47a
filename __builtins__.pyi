# Snakemake puts this object into every script; pyright reads this file for names like it.
from typing import Any

snakemake: Any
