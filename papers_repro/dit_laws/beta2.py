"""Adam's β2 for the small batches of tier tiny, tuned once: `python -m papers_repro.dit_laws.beta2`.

With 8 images a batch the squared gradients are noisy, and the usual 0.999 need not be best (Porian et al. 2024,
arXiv 2406.19146). One size in the middle of the grid, at the tier's rate, over twice the fewest steps that a point may
have; the lowest validation loss of the averaged weights wins, as the profiles are fitted to it. results/beta2.csv keeps
what came out, and a test holds `studies.SETTINGS` to the best, which is the largest candidate. One seed, and before the
rates were swept: this size's own rate turned out four times as large.
"""

from __future__ import annotations

from dataclasses import replace

from papers_repro.dit_laws import studies
from t2ikit.files import write_csv
from t2ikit.results import last, read_live
from t2ikit.runs import home
from t2ikit.workers import train_apart

BACKBONE, CANDIDATES, STEPS = "incontext-d3-w96", (0.9, 0.95, 0.98, 0.99, 0.999), 2000
COLUMNS = ["backbone", "world", "seed", "lr", "steps", "loss", "val_loss", "val_loss_averaged"]


def main() -> None:
    runs = [studies.INCONTEXT.config(BACKBONE, "tiny", lr=1e-3, betas=(0.9, beta2)) for beta2 in CANDIDATES]
    runs = [(config, replace(budget, steps=STEPS, eval_every=STEPS)) for config, budget in runs]
    table = last(read_live(train_apart(runs, home() / "runs")))[COLUMNS]
    table.insert(3, "beta2", CANDIDATES)
    print(table.to_string(index=False))
    studies.RESULTS.mkdir(exist_ok=True)
    write_csv(studies.RESULTS / "beta2.csv", table)


if __name__ == "__main__":
    main()
