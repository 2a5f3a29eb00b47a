from sqsd.initial_states import choose_states
from sqsd.logs import log_to
from sqsd.tables import read_table

with log_to(snakemake.log[0]):
    choose_states(
        trajectory=read_table(snakemake.input.trajectory, "trajectory"),
        pilot=snakemake.input.pilot,
        pilot_judgements=read_table(snakemake.input.pilot_judgements, "judgements"),
        safety=snakemake.input.safety,
        steering_judgements=read_table(snakemake.input.steering_judgements, "judgements"),
        states=snakemake.params.states,
        delta=snakemake.params.delta,
        danger=snakemake.params.danger,
        out=snakemake.output,
    )
