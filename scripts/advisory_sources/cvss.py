"""Base scores from CVSS vectors, where a record gives the vector alone.

Version 3 by the formula of https://www.first.org/cvss/v3-1/specification-document (section 7). Version 4 has a table
of 270 groups instead of a formula: its scores are looked up once in FIRST's calculator and kept in the supplement.
"""

from collections.abc import Mapping

from advisory_sources import SourceError

_WEIGHTS = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "PR": {"N": 0.85, "L": 0.62, "H": 0.27},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
_RIGHTS_WHEN_CHANGED = {"N": 0.85, "L": 0.68, "H": 0.5}
CALCULATOR = "https://www.first.org/cvss/calculator/4.0"


def base_score(vector: str, known: Mapping[str, float]) -> float:
    """The base score of a version 3 vector, or of a version 4 vector that is in `known`. Raises SourceError."""
    if vector.startswith("CVSS:4."):
        base = base_vector(vector)
        if base not in known:
            raise SourceError(f"add the score of {base} to the supplement's `cvss4`: {CALCULATOR}#{base}")
        return known[base]
    if not vector.startswith("CVSS:3."):
        raise SourceError(f"unknown kind of CVSS vector: {vector!r}")
    try:
        return _version3(dict(part.split(":", 1) for part in vector.split("/")[1:]))
    except (KeyError, ValueError) as error:
        raise SourceError(f"CVSS vector {vector!r} cannot be read: {error!r}") from error


def base_vector(vector: str) -> str:
    """A version 4 vector without the metrics that are not defined (X), which do not change the base score."""
    return "/".join(part for part in vector.split("/") if not part.endswith(":X"))


def _version3(metrics: dict[str, str]) -> float:
    changed = {"C": True, "U": False}[metrics["S"]]
    weight = {name: values[metrics[name]] for name, values in _WEIGHTS.items()}
    if changed:
        weight["PR"] = _RIGHTS_WHEN_CHANGED[metrics["PR"]]
    lost = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15 if changed else 6.42 * lost
    if impact <= 0:
        return 0.0
    ease = 8.22 * weight["AV"] * weight["AC"] * weight["PR"] * weight["UI"]
    return _round_up(min((1.08 if changed else 1.0) * (impact + ease), 10))


def _round_up(number: float) -> float:
    """To the next tenth, by whole numbers as the specification's appendix A asks."""
    scaled = round(number * 100_000)
    return scaled / 100_000 if scaled % 10_000 == 0 else (scaled // 10_000 + 1) / 10
