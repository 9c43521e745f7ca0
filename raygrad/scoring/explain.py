"""A plan as text."""

from raygrad.scoring.columns import group_of
from raygrad.scoring.cost import DeviceClass
from raygrad.scoring.plan import Plan


def describe(plan: Plan, on: DeviceClass) -> str:
    """Returns a table of a plan: layer, kind, method, predicted cost of one example.

    Args:
        plan: What ``prepare`` has decided.
        on: The class of the device that it is for.
    """
    rows = [("layer", "kind", "norms", "method", "MFLOP", "ms")]
    total = 0.0
    for site in plan.sites.values():
        roles = [role for role in (site.weight, site.bias) if role is not None]
        names = [name for role in roles for name in role.names]
        norms = " ".join(sorted(site.weight_norms | site.bias_norms))
        method = "summed" if site.deferred else site.method.name
        seconds = site.method.seconds(on)
        total += seconds
        rows.append(
            (
                ", ".join(names),
                site.kind,
                norms,
                method,
                f"{site.method.flops / 1e6:.3f}",
                f"{seconds * 1e3:.4f}",
            )
        )
    for name, method in plan.fallback.items():
        norms = " ".join(sorted(plan.needed[name]))
        rows.append((name, group_of(name), norms, f"fallback: {method}", "", ""))
    for name in sorted(plan.unused):
        rows.append((name, group_of(name), "", "unused: zero", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    last = ", ".join(plan.last_layer or ()) or f"not one of: {', '.join(plan.candidates)}"
    lines.append(f"last layer: {last}")
    lines.append(f"norms of one example, predicted: {total * 1e3:.3f} ms")
    return "\n".join(lines)
