"""From the calls of two traces to the sites of a plan."""

from collections.abc import Mapping

from raygrad.errors import ConfigError
from raygrad.scoring.collect import Site
from raygrad.scoring.cost import DeviceClass, Method, cheapest, device_class, price_alone
from raygrad.scoring.layout import Layout, find_layout
from raygrad.scoring.trace import Call, Role
from raygrad.scoring.verify import ALL_NORMS


def sites_of(
    single: list[Call],
    double: list[Call],
    unknown: set[str],
    needed: Mapping[str, frozenset[str]],
    overrides: Mapping[str, str],
) -> dict[int, Site]:
    """The sites of the calls whose parameters are wanted and have a formula.

    Args:
        single: The calls of a pass on one example.
        double: The same calls on two, that one first.
        unknown: Parameters whose norms come by other ways.
        needed: The norms to find, by parameter.
        overrides: Methods by module or parameter name.

    Returns:
        Sites by the index of their call.
    """
    uses: dict[str, int] = {}
    indirect: set[str] = set()
    for call in single:
        for role in (call.weight, call.bias):
            for name in role.names if role else ():
                uses[name] = uses.get(name, 0) + 1
            if role and not role.direct:
                indirect.update(role.names)
    sites = {}
    for one, two in zip(single, double, strict=True):
        wanted = [_wanted(role, needed, unknown) for role in (one.weight, one.bias)]
        if not any(wanted):
            continue
        site = _site(one, two, wanted, uses, indirect, needed, overrides)
        if site is not None:
            sites[one.index] = site
    return sites


def _wanted(role: Role | None, needed: Mapping[str, frozenset[str]], unknown: set[str]) -> bool:
    return role is not None and bool((set(role.names) & set(needed)) - unknown)


def _site(
    one: Call,
    two: Call,
    wanted: list[bool],
    uses: Mapping[str, int],
    indirect: set[str],
    needed: Mapping[str, frozenset[str]],
    overrides: Mapping[str, str],
) -> Site | None:
    layout = _layout(one, two)
    if layout is None or not one.operation.fits(layout, one.y):
        return None
    return _laid_out(one, layout, wanted, uses, indirect, needed, overrides)


def site_of_rows(
    call: Call, needed: Mapping[str, frozenset[str]], overrides: Mapping[str, str]
) -> Site | None:
    """The site of the one call of its parameters, were each example one row of it.

    Whether it is so only a comparison of norms can tell: see ``check_formulas``.

    Args:
        call: A call of a pass on one example.
        needed: The norms to find, by parameter.
        overrides: Methods by module or parameter name.

    Returns:
        None where the call cannot be one of rows.
    """
    layout = Layout(0, 1, major=True)
    if call.x is None or len(call.x) != 1 or len(call.y) != 1:
        return None
    if not call.operation.fits(layout, call.y):
        return None
    roles = (call.weight, call.bias)
    uses = {name: 1 for role in roles if role for name in role.names}
    indirect = {name for role in roles if role and not role.direct for name in role.names}
    wanted = [_wanted(role, needed, set()) for role in roles]
    return _laid_out(call, layout, wanted, uses, indirect, needed, overrides)


def _layout(one: Call, two: Call) -> Layout | None:
    """Where the examples are in a call's output, and in its input as well."""
    layout = find_layout(one.y, two.y)
    if layout is None and one.x is not None and not bool(one.y.any()):
        # An output that is all zero (a scale that starts at zero) is laid out as its input.
        assert two.x is not None
        layout = find_layout(one.x, two.x)
    if layout is None or not two.operation.fits(layout, two.y):
        # A tensor made of parameters with a copy for each image: only two show which dimension.
        return None
    if one.x is not None:
        assert two.x is not None
        if find_layout(one.x, two.x) != layout:
            return None
    return layout


def _laid_out(
    one: Call,
    layout: Layout,
    wanted: list[bool],
    uses: Mapping[str, int],
    indirect: set[str],
    needed: Mapping[str, frozenset[str]],
    overrides: Mapping[str, str],
) -> Site:
    operation = one.operation
    operation.batch_dim, operation.folded = layout.dim, layout.fold > 1
    norms: list[frozenset[str]] = []
    deferred = False
    for role, want in zip((one.weight, one.bias), wanted, strict=True):
        now = bool(role and want and role.direct)
        now = now and all(uses[name] == 1 and name not in indirect for name in role.names)  # type: ignore[union-attr]  # roles are known
        norms.append(needed[role.names[0]] if now and role else frozenset())
        deferred = deferred or (want and not now)
    x = None if one.x is None else layout.split(one.x)
    methods = operation.methods(x, layout.split(one.y), norms[0] or ALL_NORMS)  # type: ignore[arg-type]  # None where it expands
    on = device_class(one.y.device.type)
    method = _choose(methods, one.weight, overrides, on) if norms[0] else Method("sum", 0.0)
    return Site(
        one.index, one.function, operation.kind, one.swapped, layout, one.weight, one.bias, method,
        norms[0], norms[1], deferred,
    )  # fmt: skip


def _choose(
    methods: list[Method], role: Role | None, overrides: Mapping[str, str], on: DeviceClass
) -> Method:
    assert role is not None
    for key in (role.names[0], role.names[0].rpartition(".")[0]):
        if key in overrides:
            known = {method.name: method for method in methods}
            if overrides[key] not in known:
                raise ConfigError(
                    f"the method of {key!r} must be one of {', '.join(sorted(known))}, "
                    f"got {overrides[key]!r}. Choose one of them, or leave the choice out."
                )
            return known[overrides[key]]
    return cheapest(methods, on)


def left_out(calls: list[Call], sites: Mapping[int, Site]) -> set[str]:
    """Parameters of calls that did not become sites: all their norms go to the fallback."""
    names: set[str] = set()
    for call in calls:
        if call.index not in sites:
            for role in (call.weight, call.bias):
                names.update(role.names if role else ())
    return names


def price_of(calls: list[Call]) -> float:
    """What an image costs in a pass of its own, in images of a large batch: see `price_alone`.

    Args:
        calls: Those of a pass on one example.
    """
    flops = moved = 0.0
    for call in calls:
        weight, y = call.operation.weight, call.y.numel()
        product = call.operation.kind in ("linear", "convolution") and weight is not None
        inner = weight.numel() / max(1, len(weight)) if product and weight is not None else 1.0
        # Forward, and two products backward; what is read and written in each.
        flops += 3 * 2 * y * inner
        moved += 4 * call.y.element_size() * (y + (0 if call.x is None else call.x.numel()))
    return price_alone(flops, moved, len(calls))
