# A rule for each entry of `tables`, of its name: `snakemake table1` makes table 1.
for table in CONFIG["tables"]:

    rule:
        name:
            table
        input:
            **PLAN.table_inputs(table),
        output:
            **PLAN.table_files(table),
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
