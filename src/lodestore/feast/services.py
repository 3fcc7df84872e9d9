"""On-demand views and services of a Feast repository: what of them can be declared, with a line about each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lodestore.feast.description import FeastField, FeastOnDemand, FeastService, Projection
from lodestore.feast.kinds import Left, feature_of
from lodestore.feast.names import Names
from lodestore.feast.report import Remark
from lodestore.feast.views import Views, features_told, owner_of
from lodestore.spec import Feature, FeatureRef, FeatureService

__all__ = ["Stub", "services_of", "stubs_of"]


@dataclass(frozen=True, slots=True)
class Stub:
    """An on-demand view without its function, which somebody has to write; `code` is what Feast ran."""

    name: str
    reads: tuple[FeatureRef, ...]
    inputs: Mapping[str, Feature]
    features: Mapping[str, Feature]
    code: str
    doc: str = ""


def stubs_of(found: Sequence[FeastOnDemand], views: Views) -> tuple[list[Stub], list[Remark]]:
    """What can be said of on-demand views without their functions, which work on other rows than ours do."""
    stubs: list[Stub] = []
    remarks: list[Remark] = []
    for one in found:
        stub, told = _stub(one, views)
        stubs += [stub] if stub.features else []
        remarks += told
    return stubs, remarks


def _stub(one: FeastOnDemand, views: Views) -> tuple[Stub, list[Remark]]:
    name = views.view_names.take(one.name)
    reads, problems = _refs(one.reads, views)
    by_name = {ref.feature: ref for ref in reads}  # a function's parameters have different names
    problems += [f"{ref} has the name of another feature that it reads" for ref in reads if ref not in by_name.values()]
    names = Names(reserved=by_name, known=[each.name for each in (*one.inputs, *one.fields)])
    inputs, wrong = _typed(one.inputs, names)
    features, also_wrong = _typed(one.fields, names)
    works_on = "data frames" if one.mode == "pandas" else "lists of values" if not one.singleton else "a dict"
    mend = f"write {name} in a module of yours: its declaration is a comment in the written module, with Feast's code"
    if not features:
        mend = "declare it anew with @on_demand"
    what = f"its {one.mode} function works on {works_on}; here it is a function of one row's values"
    remarks = [Remark("on-demand view", one.name, "left", what, mend)]
    remarks += [Remark("on-demand view", one.name, "left", why) for why in (*problems, *wrong, *also_wrong)]
    words = [*(["owner"] if one.owner else []), *(["tags"] if one.tags else []), *one.more]
    if words:
        why = f"settings that are not in its declaration: {', '.join(words)}"
        remarks.append(Remark("on-demand view", one.name, "left", why))
    return Stub(name, tuple(by_name.values()), inputs, features, one.code, one.description), remarks


def _typed(fields: Sequence[FeastField], names: Names) -> tuple[dict[str, Feature], list[str]]:
    out: dict[str, Feature] = {}
    wrong = []
    for one in fields:
        made = feature_of(one, None, one.name)
        if isinstance(made, Left):
            wrong.append(f"{one.name}: {made.why}")
        else:
            out[names.take(one.name)] = made.feature
    return out, wrong


def _refs(projections: Sequence[Projection], views: Views) -> tuple[list[FeatureRef], list[str]]:
    """The features that the projections name and that came over, and why others did not."""
    refs: list[FeatureRef] = []
    problems: list[str] = []
    for one in projections:
        if one.view not in views.views:
            problems.append(f"{one.view} did not come over")
            continue
        view = views.views[one.view]
        ours = {theirs: name for name, theirs in views.origins[view.name].features.items()}
        wanted = one.features or tuple(ours)
        refs += [FeatureRef(view.name, ours[name]) for name in wanted if name in ours]
        problems += [f"{one.view}:{name} did not come over" for name in wanted if name not in ours]
    return refs, problems


def services_of(
    found: Sequence[FeastService], views: Views, on_demand: frozenset[str], prefix: str
) -> tuple[list[FeatureService], list[Remark]]:
    """The services, of those features that came over; `on_demand` are Feast's names of the on-demand views."""
    names = Names(prefix=prefix, suffix="service", known=[one.name for one in found])
    services: list[FeatureService] = []
    remarks: list[Remark] = []
    for one in found:
        made, told = _service(one, views, on_demand, names)
        services += [made] if made is not None else []
        remarks += told
    return services, remarks


def _service(
    one: FeastService, views: Views, on_demand: frozenset[str], names: Names
) -> tuple[FeatureService | None, list[Remark]]:
    usable = [each for each in one.projections if not each.join_key_map and each.view not in on_demand]
    refs, problems = _refs(usable, views)
    remarks = [Remark("feature service", one.name, "left", why) for why in problems]
    remarks += list(_projected(one, on_demand))
    if not refs:
        why, mend = "none of its features came over", "declare it anew once they have"
        return None, [Remark("feature service", one.name, "left", why, mend), *remarks]
    name = names.take(one.name)
    told = [Remark("feature service", one.name, "carried", f"FeatureService {name}, {features_told(len(refs))}")]
    if name != one.name:
        what = f"the name {one.name!r} becomes {name}"
        told.append(Remark("feature service", one.name, "different", what, "ask for it by the new one"))
    if owner_of(one.owner) != (one.owner or None):
        what = f"owner {one.owner!r} becomes {owner_of(one.owner)}"
        told.append(Remark("feature service", one.name, "different", what))
    if one.tags:
        tags = ", ".join(f"{tag}={value}" for tag, value in sorted(one.tags.items()))
        told.append(Remark("feature service", one.name, "left", f"tags: {tags}", "note what matters in doc="))
    if one.more:
        what = f"settings without a counterpart: {', '.join(one.more)}"
        told.append(Remark("feature service", one.name, "left", what))
    return FeatureService(name, refs, owner=owner_of(one.owner), doc=one.description), told + remarks


def _projected(one: FeastService, on_demand: frozenset[str]) -> Iterator[Remark]:
    for each in one.projections:
        if each.view in on_demand:
            mend = "add its features to the service once its function is written"
            yield Remark("feature service", one.name, "left", f"the on-demand view {each.view}", mend)
        elif each.join_key_map:
            keys = ", ".join(f"{theirs} as {ours}" for theirs, ours in sorted(each.join_key_map.items()))
            mend = "ask for the view twice, with the key's own name in each request"
            yield Remark("feature service", one.name, "left", f"{each.view} with its keys under others: {keys}", mend)
        elif each.alias:
            mend = f"read the columns of {each.view}"
            what = f"{each.view} under the alias {each.alias}: a feature has one name here"
            yield Remark("feature service", one.name, "different", what, mend)
