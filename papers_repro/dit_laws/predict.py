"""What the law says of the far run, written down before it is trained: `python -m papers_repro.dit_laws.predict`.

results/predicted.csv keeps it: the surface through all measured points of isoflop-incontext-scenes, its prediction with
a 95% interval for a run of that size, and the baselines that it has to beat: the power law through the optima, with an
interval too, and the best loss of the largest budget. It is written once: what is already foretold or measured is not
foretold again.
"""

from __future__ import annotations

from typing import Annotated

import pandas as pd
import typer

from papers_repro.dit_laws import compare, profiles, studies
from t2ikit import cli
from t2ikit.errors import UserError
from t2ikit.files import write_csv
from t2ikit.runs import home
from t2ikit.workers import trained

FILE = studies.RESULTS / "predicted.csv"
LOSS = "val_loss_averaged"


def main(tier: Annotated[str, typer.Option(help="smoke, tiny, small or paper.")] = "tiny") -> None:
    rows = profiles.gather([studies.INCONTEXT, studies.FURTHER], tier, live=False)
    ours, far = (
        profiles.profile(s, rows, tier, label, LOSS)
        for s, label in ((studies.INCONTEXT, "in-context"), (studies.FURTHER, "far run"))
    )
    known = compare.read_foretold(FILE)
    here = trained(studies.FURTHER.runs(tier), home() / "runs")
    if len(far.table) or here or (known["tier"] == tier).any():
        raise UserError(f"The far run of tier {tier} is foretold or measured already: see {FILE.name}.")
    table = compare.predict(ours, studies.FURTHER, far)
    if table["predicted"].isna().any():
        raise UserError(f"There is no surface to predict with: {ours.why or 'train isoflop-incontext-scenes first'}.")
    law = ours.fit.surface.huber
    of_law = {"E": law.E, "A": law.A, "alpha": law.alpha, "B": law.B, "beta": law.beta, "points": ours.fit.surface.n}
    table = table.drop(columns=["measured", "n", "decades beyond"]).assign(tier=tier, loss=LOSS, **of_law)
    both = pd.concat([known, table]) if len(known) else table
    write_csv(FILE, both)
    print(table.to_string(index=False))


if __name__ == "__main__":
    cli.command(main)
