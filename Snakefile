import sys
from pathlib import Path

# Of this file, not of the main one: this workflow may be a module of another.
ROOT = Path(workflow.current_basedir)
sys.path.insert(0, str(ROOT / "src"))


# With `--sdm apptainer`. Its path is relative: moving the folder makes no result anew.
container: "envs/sqsd.sif"


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/directions.smk"
include: "rules/sensitivity.smk"
include: "rules/gradients.smk"
include: "rules/scores.smk"
include: "rules/curation.smk"
include: "rules/explanations.smk"
include: "rules/finetunes.smk"
include: "rules/groups.smk"
include: "rules/evaluation.smk"
include: "rules/losses.smk"
include: "rules/report.smk"
include: "rules/planning.smk"


rule all:
    """Every table and figure that the configuration selects."""
    default_target: True
    input:
        SELECTED,
    localrule: True


onstart:
    check_slurm(workflow)
    try:
        write_config(PLAN)
    except OSError as error:
        sys.exit(message_of_disk(error, f"{PATHS.config}: cannot be written"))
    lift_default_rate_limit(workflow.scheduler)


onsuccess:
    if "curate" in workflow.dag_settings.targets:
        print(*map(what_came_of, PLAN.curated()), sep="\n", file=sys.stderr)
