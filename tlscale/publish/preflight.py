"""What can be known before anything is trained or uploaded: token, rights, name, base and licences."""

from __future__ import annotations

from tlscale.errors import UsageError
from tlscale.planning.types import Plan
from tlscale.publish import evidence, licences
from tlscale.publish.bases import base_on_hub
from tlscale.publish.hub import Account, Hub
from tlscale.publish.push import check_ours
from tlscale.recipe.publish import Publish

WRITING = ("admin", "write", "contributor")


def preflight(asked: Publish, plan: Plan, hub: Hub) -> Account:
    """Refuses a publication that could not happen; changes nothing on the Hub.

    Raises:
        UsageError: no token, no right to write there, a name that holds something else, a base that others
            can't load or whose terms are not accepted, or a licence looser than the sources allow.
    """
    account = hub.account()
    _may_write(asked, account, hub)
    whole = asked.merged or _is_whole(plan)
    licence = None
    if not (whole and plan.facts.commit is None and asked.base is None):
        licence = base_on_hub(plan, hub, asked.base)[1].licence
    links = [licences.Link("base", asked.base or plan.facts.model, licence)]
    for role, source in evidence.sources_of(plan):
        if role in ("train", "validation") or role.startswith("stage "):
            known = source.license
            if known is None and source.hub is not None:
                about = hub.about(source.hub, dataset=True)
                known = None if about is None else about.licence
            links.append(licences.Link("data set", source.hub or source.path or "", known))
    licences.settle(links, asked.license)
    return account


def _is_whole(plan: Plan) -> bool:
    """Whether the result will be a checkpoint of its own: everything or parts of the base are trained."""
    last = plan.stages[-1].stage if plan.stages else None
    return last is not None and last.adapter is None and last.head.kind == "native"


def _may_write(asked: Publish, account: Account, hub: Hub) -> None:
    owner = asked.to.partition("/")[0]
    if account.token_role == "read":
        raise UsageError(
            f"the token of {account.name} may only read; make one with the right to write on "
            f"{hub.endpoint}/settings/tokens, and set HF_TOKEN"
        )
    if owner != account.name and account.organizations.get(owner) not in WRITING:
        theirs = ", ".join([account.name, *(n for n, r in account.organizations.items() if r in WRITING)])
        raise UsageError(
            f"publish.to: {asked.to}: {account.name} may not publish for {owner}; for: {theirs}"
        )
    state = hub.state(asked.to)
    if state is None:
        return
    check_ours(asked.to, state)
    if not hub.may_write(asked.to):
        raise UsageError(f"publish.to: {asked.to}: exists, and this token may not write to it")
    if state.private != asked.private:
        now, flag = ("private", "--private") if state.private else ("public", "--public")
        raise UsageError(
            f"publish.to: {asked.to} is {now} already, and this push asks for the other: give {flag}, or "
            f"change it on {hub.page(asked.to)}/settings"
        )
