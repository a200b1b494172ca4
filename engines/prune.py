"""Removing engines: what nobody can use, and what the rules of a call name."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vr_trt.engines.cache import EngineCache
from vr_trt.engines.spec import is_engine_name
from vr_trt.engines.store import Store, cache_folder, folder_bytes
from vr_trt.engines.verify import Finding, examine

DAY = 86400


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneRule:
    """Which sound engines go too; None and False keep them all."""

    older_than_days: float | None = None  # since it was built
    unused_for_days: float | None = None  # since it was built or opened
    keep_bytes: int | None = None  # those used last stay
    stale: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """A folder that goes, or would go."""

    name: str
    reason: str
    bytes: int


def prune_engines(
    rule: PruneRule, *, dry_run: bool = False, cache: Path | None = None
) -> list[Removal]:
    """Remove leftovers of killed builds, damaged and foreign engines, and what `rule` names.

    Folders that are not named as engines are, and those that a process is making, are left alone. With `dry_run` nothing changes.
    """
    store = EngineCache(cache).store
    chosen = list(_chosen(store, rule, cache))
    chosen += [
        Removal(
            name=path.name, reason="left by a process that was killed", bytes=folder_bytes(path)
        )
        for place in (store, Store((cache or cache_folder()) / "graphs"))
        for path in place.leftovers()
    ]
    if dry_run:
        return chosen
    for removal in chosen:
        if removal.name.startswith("."):
            continue
        with store.lock(removal.name):
            if store.path(removal.name).is_dir():
                store.remove(removal.name)
    for place in (store, Store((cache or cache_folder()) / "graphs")):
        place.remove_leftovers()
    return chosen


def _chosen(store: Store, rule: PruneRule, cache: Path | None) -> Iterator[Removal]:
    now, kept = time.time(), 0
    findings = [f for f in examine(cache) if is_engine_name(f.name)]
    for finding in sorted(findings, key=lambda f: -f.engine.used if f.engine else 0):
        size = folder_bytes(store.path(finding.name))
        reason = _reason(finding, rule, now)
        if not reason and rule.keep_bytes is not None and kept + size > rule.keep_bytes:
            reason = f"more than {rule.keep_bytes / 1e9:g} GB, and others were used later"
        if reason:
            yield Removal(name=finding.name, reason=reason, bytes=size)
        else:
            kept += size


def _reason(finding: Finding, rule: PruneRule, now: float) -> str:
    if finding.engine is None or finding.state in ("damaged", "foreign"):
        return finding.state
    if rule.stale and finding.state == "stale":
        return f"stale: {finding.detail}"
    age, idle = (now - finding.engine.built) / DAY, (now - finding.engine.used) / DAY
    if rule.older_than_days is not None and age > rule.older_than_days:
        return f"built {age:.1f} days ago"
    if rule.unused_for_days is not None and idle > rule.unused_for_days:
        return f"not used for {idle:.1f} days"
    return ""
