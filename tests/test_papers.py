"""What installed papers bring is found by name, and the verdicts on their claims are read as they were written."""

import pytest

from t2ikit import papers
from t2ikit.errors import UserError


def test_a_figure_is_found_by_its_name(install_paper):
    alpha, beta = install_paper("alpha"), install_paper("beta")
    for path in (alpha / "fig90.ipynb", alpha / "fig91.ipynb", beta / "fig90.ipynb"):
        path.write_text("{}")
    assert papers.find("fig91") == alpha / "fig91.ipynb"
    assert papers.find("beta/fig90") == beta / "fig90.ipynb"
    with pytest.raises(UserError, match="'fig90' is in more than one paper: choose one of alpha/fig90, beta/fig90."):
        papers.find("fig90")
    with pytest.raises(
        UserError, match=r"Unknown figure 'fig91x': choose one of alpha/fig90, fig91, .*did you mean 'fig91'"
    ):
        papers.find("fig91x")
    for name in ("../fig91", "alpha/../fig91", "/etc/passwd", ""):
        with pytest.raises(UserError, match="Unknown figure"):
            papers.find(name)


def test_claims_are_read_as_they_were_written(install_paper):
    folder = install_paper("alpha") / "results"
    folder.mkdir()
    known = len(papers.claims())
    text = "id,claim,verdict,paper,ours,low,high,n,needs,tier,why,world\n"
    text += 'X1,"a, b",undecided,-0.0273,0.5,,,1,,tiny,one seed,scenes\nX2,c,reproduced,> 0,1e-3,0,2e-3,3,12,small,,\n'
    (folder / "claims.csv").write_text(text)
    rows = {row["id"]: row for row in papers.claims()}
    assert len(papers.claims()) == known + 2
    assert rows["X1"] == {
        "id": "X1", "claim": "a, b", "verdict": "undecided", "paper": -0.0273, "ours": 0.5, "low": None, "high": None,
        "n": 1, "needs": None, "tier": "tiny", "why": "one seed", "world": "scenes",
    }  # fmt: skip
    assert [rows["X2"][key] for key in ("paper", "low", "needs", "why", "world")] == ["> 0", 0.0, 12, None, None]


@pytest.mark.parametrize("text", [
    "<<<<<<< HEAD\nid,claim\n", "id,claim\nX1,a\n", "HEAD\nX1,a,reproduced,1,1,1,1,three,,tiny,,\n", "HEAD\nX1,a\n",
])  # fmt: skip
def test_damaged_claims_are_one_sentence(install_paper, text):
    folder = install_paper("alpha") / "results"
    folder.mkdir()
    (folder / "claims.csv").write_text(text.replace("HEAD\nX1", ",".join(papers.COLUMNS) + "\nX1"))
    with pytest.raises(UserError, match=r"claims.csv is damaged at line \d: restore it with git"):
        papers.claims()


def test_a_paper_may_have_no_init_file_and_one_that_is_gone_is_passed_over(install_paper):
    alpha, beta = install_paper("alpha"), install_paper("beta")
    (alpha / "__init__.py").unlink()
    (alpha / "fig90.ipynb").write_text("{}")
    (beta / "__init__.py").unlink()
    beta.rmdir()
    assert papers.find("fig90") == alpha / "fig90.ipynb"
    assert "beta" not in dict(papers.folders())
