# A rule for each entry of `tables`, of its name: `snakemake table1` makes table 1.
for table in CONFIG["tables"]:

    rule:
        name:
            table
        input:
            **PLAN.table_inputs(table),
        output:
            **in_report(table),
        log:
            PATHS.log(table),
        localrule: True
        conda:
            ENVIRONMENT
        params:
            kind=CONFIG["tables"][table]["kind"],
            parts=PLAN.table_params(table),
            settings=PLAN.table_settings(table),
            version=VERSION["make_table"],
        script:
            f"{SCRIPTS}/make_table.py"

    getattr(rules, table).rule.docstring = CONFIG["tables"][table]["title"]


rule page:
    """The run on one page: rows and why they are risky, every selected table, where it is from."""
    input:
        **part_inputs(PLAN.page_rows() + PLAN.page_tables()),
    output:
        report(PATHS.page, caption="../report/page.rst", category="The run on one page"),
    log:
        PATHS.log("page"),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        run=CONFIG["run"],
        entries=PLAN.page_entries(),
        ranked=part_params(PLAN.page_rows()),
        tables=part_params(PLAN.page_tables()),
        ends=picked(CONFIG["explain"], "riskiest", "safest"),
        version=VERSION["page"],
    script:
        f"{SCRIPTS}/page.py"
