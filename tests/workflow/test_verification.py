"""Tiles are verified when somebody asks for it, and only then; the page shows what was found."""

import json


def test_verification_runs_on_request_alone(project, micrograph):
    project.drop("slides/plate/a.tif", micrograph)
    assert "verify" not in project.planned()
    done = project.snakemake("results/verification/net/plate/a.json")
    assert done.returncode == 0, done.stderr
    proof = json.loads((project.folder / "results/verification/net/plate/a.json").read_text())
    assert proof["law"] == "holds"
    done = project.snakemake()
    assert done.returncode == 0, done.stderr
    assert ">Verification</h2>" in (project.folder / "results/report.html").read_text()
    done = project.snakemake("--dry-run", "verification")
    assert done.returncode == 0, done.stderr
    assert "verification" in done.stdout
