import sys

from sqsd.costs import Job
from sqsd.forecast import forecast
from sqsd.logs import log_to
from sqsd.plan import Plan
from sqsd.provenance import made_from

terminal = sys.stdout
with log_to(snakemake.log[0]):
    page = forecast(
        plan=Plan(snakemake.params.config),
        jobs=[Job(**job) for job in snakemake.params.jobs],
        provenance=made_from(snakemake, "plan"),
    )
    print(page, file=terminal)
