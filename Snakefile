import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "src"))


configfile: str(Path(workflow.basedir) / "config/config.yaml")


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/directions.smk"
include: "rules/sensitivity.smk"
include: "rules/gradients.smk"
include: "rules/scores.smk"
include: "rules/finetunes.smk"
include: "rules/evaluation.smk"
include: "rules/report.smk"


rule all:
    """Every table and figure that the configuration selects."""
    default_target: True
    input:
        [report_files(report) for report in config["selection"]["reports"]],
