"""Which claims of paper D each figure decides, a function a figure: its notebook and FINDINGS.md ask the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from papers_repro.dit_laws.compare import held_out
from papers_repro.dit_laws.profiles import Profile
from papers_repro.dit_laws.verdicts import (
    audited,
    covered,
    crosses,
    exponent,
    falls,
    far,
    flat_rate,
    gives_hours_and_images,
    interior_minima,
    predicted,
    ranks_alike,
    refuses_two_points,
    shape_matters,
    steeper,
)
from papers_repro.verdicts import Verdict
from t2ikit.isoflop import IsoFlop

VALIDATION = "val_loss_averaged"


def optima(p: Profile) -> list[Verdict]:
    """Figure 1: D1, D2."""
    exponents = (exponent("D2", p, law, printed) for law, printed in (("n_opt", "N_opt"), ("d_opt", "D_opt")))
    return [interior_minima("D1", p), *exponents]


def of_the_print(audit: Sequence[dict]) -> list[Verdict]:
    """Figure 1: D13, D14, D15, for which nothing is trained."""
    return [
        refuses_two_points(),
        gives_hours_and_images(),
        audited("D15", "what the paper and its authors' answers say agrees with its laws", audit, "statement"),
    ]


def of_printed_captions(audit: Sequence[dict]) -> list[Verdict]:
    """Figure 3: D15 of the printed FID laws of dense and sparse captions."""
    both = [f for f in audit if f.get("laws") == ["FID", "FID sparse captions"]]
    return [audited("D15", "the law of dense captions is the better one over its whole range", both, "crossing")]


def losses(of: Mapping[str, Profile]) -> list[Verdict]:
    """Figure 2: D3 of the training loss and the validation loss, by the name of each."""
    return [exponent("D3", of["loss"], "loss_opt", "loss"), falls("D3", of[VALIDATION])]


def likelihoods(of: Mapping[str, Profile]) -> list[Verdict]:
    """Figure 2: D3 of bound and likelihood: both fall as power laws, and rank the runs as the validation loss does."""
    both = [of["vlb"], of["nll"]]
    return [falls("D3", p) for p in both] + [alike("D3", p, p.label, "the validation loss") for p in both]


def distance(p: Profile, points: pd.DataFrame) -> list[Verdict]:
    """Figure 3: D4 and D12 of images' distance, and D12 of the caption gap of all `points`."""
    gaps = points.assign(gap=-points["caption_gap"])
    says = "the caption gap ranks the runs as the validation loss does"
    return [
        interior_minima("D4", p, "at each budget its parabola in log N has an interior minimum"),
        falls("D4", p),
        exponent("D4", p, "loss_opt", "FID"),
        alike("D12", p, p.y, "the validation loss"),
        ranks_alike("D12", says, gaps, "val_loss", "gap", p.tier),
    ]


def families(vanilla: Profile, cross: Profile, adaln: Profile) -> list[Verdict]:
    """Figure 5: D6, and the reviewers' D16."""
    return [
        steeper("D6", "cross-attention's loss falls faster than in-context's", vanilla, cross),
        crosses("D6", vanilla, cross),
        steeper("D16", "in-context with adaLN falls faster than vanilla", vanilla, adaln),
        steeper("D16", "in-context with adaLN falls faster than cross-attention", cross, adaln),
    ]


def same_form(id: str, profiles: Sequence[Profile]) -> list[Verdict]:
    """G.1 to G.3: D7, D8, D9: a law of the same form."""
    minima = [interior_minima(id, p) for p in profiles]
    return minima + [falls(id, p, "the loss at N_opt") for p in profiles]


def captions(fid: Mapping[str, Profile], on: Mapping[tuple[str, str], Profile]) -> list[Verdict]:
    """G.6: D11 by distance, and by the loss on each caption set; `on` by (trained on, asked with)."""
    return [
        steeper("D11", "the distance of dense captions falls faster with C", fid["sparse"], fid["dense"]),
        *(
            steeper("D11", f"on {c} captions dense training falls faster with C", on["sparse", c], on["dense", c])
            for c in ("dense", "sparse")
        ),
    ]


def elsewhere(away: Profile, world: str, other: str) -> list[Verdict]:
    """Out of domain: the laws of the loss on `other` of runs trained on `world`."""
    return [falls("D3", away, f"the loss on {other}"), interior_minima("D1", away), alike("D12", away, other, world)]


def rates(sweep: pd.DataFrame, study: IsoFlop, tier: str) -> list[Verdict]:
    """G.5: D10, around the rate that each size of the study trains at."""
    return flat_rate("D10", sweep, {b: study.config(b, tier)[0].lr for b in study.at(tier).backbones}, tier)


def shapes(p: Profile) -> list[Verdict]:
    """Width against depth: D17."""
    return [shape_matters("D17", p)]


def extrapolation(of: Sequence[Profile], beyond: pd.DataFrame, tier: str) -> list[Verdict]:
    """D5: the largest budget held out, of each profile; and the far run, a row a size of `beyond`."""
    return [*(predicted("D5", p, *held_out(p)) for p in of), *far("D5", beyond, tier)]


def known(p: Profile, floor: float | None) -> list[Verdict]:
    """The known floor: the irreducible loss that the surface fits is the one that can be computed."""
    return covered(p, floor)


def alike(id: str, p: Profile, name: str, other: str) -> Verdict:
    """`name`, what the profile measures, ranks its runs as their validation loss, called `other`, does."""
    table = p.table if len(p.table) else pd.DataFrame(columns=["steps", "run", "C", "backbone"])
    return ranks_alike(id, f"{name} ranks the runs as {other} does", table, VALIDATION, p.y, p.tier)
