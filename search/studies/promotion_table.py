"""What `promote` found out, as a table for a terminal and as plain values for scripts."""

from dataclasses import asdict
from typing import Any

from search.evaluation.figures import formatted
from search.studies.differences import Difference
from search.studies.promoted import Comparison, Member, Promotion
from search.studies.statistics import LEVEL
from search.view.tables import MARK, taint_notes
from search.view.terminal_tables import Sheet, sheet


def promotion_table(promotion: Promotion) -> Sheet:
    """Returns a table with a row for each candidate, followed by its rivals."""
    by_rival = {id(one.rival): one for one in promotion.comparisons}
    cells = [_row(member, by_rival.get(id(member))) for member in promotion.members]
    interval = f"{LEVEL:.0%} interval"
    names = (
        *("model", "size", "parameters", f"{promotion.metric} [ms]", "of candidate's", "loss [nats/token]"),
        *("±", "difference", interval, "candidate is"),
    )
    count = len(promotion.seeds)
    remarks = {one.remark for one in promotion.comparisons if one.remark}
    return sheet(
        names,
        cells,
        words=("model", "candidate is"),
        title=f"run {promotion.run}, {promotion.tokens:,} tokens, {count} seed{'s' if count > 1 else ''}",
        notes=[
            "difference: the rival's loss less the candidate's; above 0 the candidate is better",
            *sorted(remarks),
            *taint_notes({member.label: member.tainted for member in promotion.members}),
        ],
    )


def promotion_json(promotion: Promotion) -> dict[str, Any]:
    """The whole promotion as JSON takes it; a comparison names its two models by their labels."""
    return {
        "run": promotion.run,
        "tokens": promotion.tokens,
        "seeds": list(promotion.seeds),
        "metric": promotion.metric,
        "members": [
            {**asdict(member), "loss": member.loss, "error": member.error} for member in promotion.members
        ],
        "comparisons": [
            {
                "candidate": one.candidate.label,
                "rival": one.rival.label,
                "time_ratio": one.time_ratio,
                "difference": asdict(one.difference) if one.difference else None,
                "verdict": one.verdict,
                "remark": one.remark,
            }
            for one in promotion.comparisons
        ],
    }


def _row(member: Member, comparison: Comparison | None) -> tuple[str, ...]:
    mark = MARK if member.tainted else ""
    ms = f"{member.ms:.4g}{mark}" if member.ms is not None else ""
    name = member.rival or f"candidate {member.candidate}"
    figures = (f"{member.width}x{member.depth}", formatted("params", member.params), ms)
    ratio = comparison.time_ratio if comparison is not None else None
    losses = (_number(member.loss), _number(member.error))
    difference = comparison.difference if comparison is not None else None
    return (
        *(name, *figures, "" if ratio is None else f"{ratio:.3f}", *losses),
        *("" if difference is None else f"{difference.mean:+.4f}", _interval(difference)),
        comparison.verdict if comparison is not None else "",
    )


def _interval(difference: Difference | None) -> str:
    if difference is None or difference.low is None or difference.high is None:
        return ""
    return f"{difference.low:+.4f} – {difference.high:+.4f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
