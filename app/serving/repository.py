"""Which bundles are live: `models/<name>/<version>` on disk, brought in line with each model's plan.

A version goes live only when its bundle is verified, loaded, answers its golden cases and is warm; then it
takes over in one step, between two requests. Until then, and if it is bad, the old version serves. A
version that is retired answers the requests that it has and is freed with the last of them.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.bundle.errors import BundleError
from app.runtime.errors import DeviceUnavailable, RuntimeFault
from app.serving.cost import CostModel
from app.serving.errors import FolderUnreadable, LoadFailed, ModelAmbiguous, ModelNotFound, NoLiveModel
from app.serving.loading import Loader
from app.serving.model import LiveModel
from app.serving.plan import Plan, PlanInvalid, has_plan, read_plan, remove_plan, write_plan

log = logging.getLogger(__name__)

Key = tuple[str, int]  # name, version
_Fingerprint = frozenset[tuple[str, int, int, int, int]]  # of every file: path, mode, inode, size, time


class State(StrEnum):
    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"  # retired, and still answering its last requests
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version in the folder. `reason` says why it does not serve; it is for operators."""

    name: str
    version: int
    state: State
    reason: str = ""
    is_refused: bool = False  # its bundle is bad; else it may be that nobody wants it


@dataclass(frozen=True, slots=True)
class _Refused:
    """Why a bundle is not loaded; not tried again before one of its files changes."""

    reason: str
    fingerprint: _Fingerprint


class Repository:
    """The live models. Changes block and may come from any thread; all else is cheap and needs no lock."""

    def __init__(
        self,
        folder: Path,
        load: Loader,
        *,
        plan: Plan,
        default: str | None = None,
        on_change: Callable[[Repository], None] = lambda repository: None,  # noqa: ARG005
    ) -> None:
        self._folder = folder
        self._load = load
        self._default_plan = plan
        self._default = default
        self.on_change = on_change
        self._lock = threading.Lock()
        self._models: Mapping[Key, LiveModel] = {}  # replaced, never changed, so that readers need no lock
        self._plans: Mapping[str, Plan] = {}
        self._refused: dict[Key, _Refused] = {}
        self._on_disk: frozenset[Key] = frozenset()
        self._unlisted: set[str] = set()  # models whose folder cannot be read
        self._loading: Key | None = None
        self._retired: dict[Key, weakref.ref[LiveModel]] = {}

    # --- for requests -----------------------------------------------------------------------

    def __iter__(self) -> Iterator[LiveModel]:
        return iter(self._models.values())

    def find(self, name: str | None = None, version: int | str | None = None) -> LiveModel:
        """The model for a request: a version by number or label, or what the plan picks.

        Raises ModelNotFound or ModelAmbiguous.
        """
        models = self._models
        name = name or self._default or self._only_name()
        live = sorted(known for model, known in models if model == name)
        if not live:
            raise ModelNotFound("No model of that name is served. GET /v1/models lists them.", part="model")
        plan = self._plans.get(name, self._default_plan)
        if isinstance(version, str):
            labels = {"stable": plan.pick(live, draw=1.0), "canary": plan.canary}
            version = labels.get(version) or 0
        elif version is None:
            version = plan.pick(live, draw=random.random())  # noqa: S311 - a share of traffic, not a secret
        if version not in live:
            raise ModelNotFound("That version is not served. GET /v1/models lists them.", part="version")
        return models[name, version]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is served, as after the last model was unloaded."""
        return not self._models

    def require_live(self) -> None:
        """Raises ModelNotFound when nothing is served."""
        if self.is_empty:
            raise ModelNotFound("No model is served at present.", part="model")

    def expected_costs(self) -> CostModel:
        """Of the dearest live model: what to expect of a request that is not read yet."""
        dearest = max(self, key=lambda model: model.costs.lone_row_s, default=None)
        return dearest.costs if dearest else CostModel()

    # --- for operators ----------------------------------------------------------------------

    def index(self) -> list[VersionStatus]:
        """Every version in the folder, and retired ones that are not gone yet."""
        leaving = {key for key, model in self._retired.items() if model() is not None}
        keys = sorted(self._on_disk | self._models.keys() | leaving)
        return [self._status(key, is_leaving=key in leaving) for key in keys]

    def plan(self, name: str) -> Plan:
        """Raises ModelNotFound if the folder has no such model."""
        if not any(known == name for known, _ in self._on_disk | self._models.keys()):
            raise ModelNotFound("There is no model of that name.", part="model")
        return self._plans.get(name, self._default_plan)

    def change(self, name: str, plan: Plan) -> None:
        """Write a model's plan and follow it. Blocks while versions load.

        Raises ModelNotFound, or LoadFailed: a version that the plan labels cannot be served, in which case
        nothing changes, or the plan cannot be written.
        """
        before, folder = self.plan(name), self._folder / name
        was_said = has_plan(folder)
        try:
            write_plan(folder, plan)
        except PlanInvalid as error:
            raise LoadFailed(str(error)) from error
        try:
            self._follow(name, plan)
        except LoadFailed:
            with suppress(PlanInvalid, FolderUnreadable):  # where nothing can be written nothing was
                self._put_back(folder, before if was_said else None)
            raise

    def load(self, name: str) -> None:
        """Serve the model again, and look for new versions. Raises ModelNotFound or LoadFailed."""
        with self._lock:
            self._refused = {key: bad for key, bad in self._refused.items() if key[0] != name}
        self._follow(name, Plan())
        plan = self.plan(name)
        if plan.enabled:
            self._require(name, plan)
        else:
            self.change(name, plan.model_copy(update={"enabled": True}))
        if not any(model == name for model, _ in self._models):
            raise LoadFailed("No version of the model can be served. The index says why.")

    def unload(self, name: str) -> None:
        """Stop serving the model; requests that it has are answered. Raises ModelNotFound or LoadFailed."""
        self.change(name, self.plan(name).model_copy(update={"enabled": False}))

    def promote(self, name: str, version: int) -> None:
        """Make a version stable, and remember which one was. Raises ModelNotFound or LoadFailed."""
        live = [known for model, known in self._models if model == name]
        plan = self.plan(name)
        now = plan.pick(live, draw=1.0) if live else None
        kept = plan.versions if isinstance(plan.versions, str) else tuple({*plan.versions, version})
        self.change(name, plan.promoted(version, now=now).model_copy(update={"versions": kept}))

    def roll_back(self, name: str) -> None:
        """Make the version stable that was so before, or else the next lower one.

        Raises ModelNotFound or LoadFailed.
        """
        now = self.find(name, "stable").manifest.version
        lower = [version for known, version in self._on_disk if known == name and version < now]
        back = self.plan(name).previous or max(lower, default=None)
        if back is None:
            raise LoadFailed("There is no earlier version to go back to.")
        self.promote(name, back)

    def start(self) -> None:
        """Load what the folder holds. Raises NoLiveModel, or DeviceUnavailable."""
        try:
            self.reconcile()
        except FolderUnreadable as error:
            raise NoLiveModel(str(error)) from error
        if not self._models:
            bad = "".join(
                f" {name}/{version}: {why.reason}" for (name, version), why in self._refused.items()
            )
            raise NoLiveModel(f"{self._folder}: no bundle at <name>/<version> can be served.{bad}")
        if self._default is not None and self._default not in self._names():
            live = ", ".join(self._names())
            raise NoLiveModel(f"The default model '{self._default}' is not live. Live: {live}.")

    def reconcile(self) -> None:
        """Bring the live models in line with the folder. Blocks while versions load.

        Raises FolderUnreadable: then nothing changes.
        """
        with self._lock:
            self._on_disk = self._look()
            self._plans = self._read_plans()
            wanted = {key for name in self._disk_names() for key in self._bring_up(name)}
            self._retire(self._models.keys() - wanted)

    # --- inside -----------------------------------------------------------------------------

    def _put_back(self, folder: Path, plan: Plan | None) -> None:
        """None: there was no file."""
        if plan is None:
            remove_plan(folder)
        else:
            write_plan(folder, plan)
        self.reconcile()

    def _follow(self, name: str, plan: Plan) -> None:
        """Reconcile, and see that what the plan labels is live. Raises LoadFailed."""
        try:
            self.reconcile()
        except FolderUnreadable as error:
            raise LoadFailed("The models folder cannot be read at present.") from error
        self._require(name, plan)

    def _look(self) -> frozenset[Key]:
        """The versions in the folder. Raises FolderUnreadable."""
        try:
            models = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise FolderUnreadable(
                f"{self._folder}: the folder cannot be read, so no bundle at <name>/<version> can be served."
            ) from error
        if self._models and not models:  # to serve nothing any more, models are unloaded
            raise FolderUnreadable(f"{self._folder}: the folder is empty, as if its volume were not mounted.")
        return frozenset(key for path in models for key in self._versions(path))

    def _versions(self, model: Path) -> set[Key]:
        """Folders named by a number; hidden names are bundles still being written."""
        name = model.name
        try:
            found = {(name, int(path.name)) for path in model.iterdir() if _is_version(path)}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError as error:  # its neighbours are well
            if name not in self._unlisted:  # said once: the lost+found of a volume is no model at all
                log.warning("a model's folder cannot be read: %s", error.strerror, extra={"model": name})
            self._unlisted.add(name)
            return {key for key in self._on_disk if key[0] == name}
        self._unlisted.discard(name)
        return found

    def _read_plans(self) -> dict[str, Plan]:
        plans = {}
        for name in self._disk_names():
            try:
                plans[name] = read_plan(self._folder / name, self._default_plan)
            except PlanInvalid as error:
                log.error("plan refused, the last one stays: %s", error, extra={"model": name})  # noqa: TRY400
                plans[name] = self._plans.get(name, self._default_plan)
        return plans

    def _bring_up(self, name: str) -> set[Key]:
        """Load what the plan wants and is not live; what is wanted and live in the end."""
        plan = self._plans[name]
        on_disk = [version for known, version in self._on_disk if known == name]
        good: set[Key] = set()
        for group in plan.candidates(on_disk):
            alive = next((version for version in group if self._is_live((name, version))), None)
            if alive is not None:
                good.add((name, alive))
        if plan.enabled and not good:  # whatever the plan says: rather an old answer than none
            good = {key for key in self._models if key[0] == name}
        return good

    def _is_live(self, key: Key) -> bool:
        """Load the version unless it is live already or known to be bad."""
        if key in self._models:
            return True
        path = self._folder / key[0] / str(key[1])
        fingerprint = _fingerprint(path)
        known_bad = self._refused.get(key)
        if known_bad is not None and known_bad.fingerprint == fingerprint:
            return False
        self._loading = key
        try:
            model = self._load(path)
        except (BundleError, RuntimeFault) as error:
            if isinstance(error, DeviceUnavailable) and not self._models:
                raise  # at the start: no bundle can do without the device
            about = {"model": key[0], "version": key[1]}
            log.error("bundle refused: %s", error, extra=about)  # noqa: TRY400
            self._refused[key] = _Refused(str(error), fingerprint)
            return False
        finally:
            self._loading = None
        self._refused.pop(key, None)
        self._swap({**self._models, key: model})
        return True

    def _retire(self, keys: set[Key]) -> None:
        for key in keys:
            self._retired[key] = weakref.ref(self._models[key])
            log.info("model retired", extra={"model": key[0], "version": key[1]})
        if keys:
            self._swap({key: model for key, model in self._models.items() if key not in keys})
        self._retired = {key: model for key, model in self._retired.items() if model() is not None}

    def _swap(self, models: Mapping[Key, LiveModel]) -> None:
        self._models = models
        self.on_change(self)

    def _require(self, name: str, plan: Plan) -> None:
        for label in (plan.stable, plan.canary):
            if plan.enabled and label is not None and (name, label) not in self._models:
                bad = self._refused.get((name, label))
                raise LoadFailed(f"Version {label} cannot be served{f': {bad.reason}' if bad else '.'}")

    def _status(self, key: Key, *, is_leaving: bool) -> VersionStatus:
        name, version = key
        if key in self._models:
            return VersionStatus(name, version, State.READY)
        if key == self._loading:
            return VersionStatus(name, version, State.LOADING)
        if is_leaving:
            return VersionStatus(name, version, State.UNLOADING, "retired")
        bad = self._refused.get(key)
        reason = bad.reason if bad else "the model's plan does not serve it"
        return VersionStatus(name, version, State.UNAVAILABLE, reason, is_refused=bad is not None)

    def _only_name(self) -> str:
        self.require_live()
        names = self._names()
        if len(names) > 1:
            raise ModelAmbiguous(
                "Several models are served. Name one in the form's model field.", part="model"
            )
        return names[0]

    def _names(self) -> list[str]:
        return sorted({name for name, _ in self._models})

    def _disk_names(self) -> list[str]:
        return sorted({name for name, _ in self._on_disk})


def _is_version(path: Path) -> bool:
    name = path.name
    return name.isascii() and name.isdigit() and not name.startswith("0") and path.is_dir()


def _fingerprint(folder: Path) -> _Fingerprint:
    """Differs when any file does: a bundle that is copied in place changes until its last byte is there."""
    return frozenset(_stats(folder))


def _stats(folder: Path) -> Iterator[tuple[str, int, int, int, int]]:
    for parent, _, names in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in names)):
            with suppress(OSError):  # gone meanwhile, or not ours to read: the next look compares again
                seen = path.lstat()
                yield str(path), seen.st_mode, seen.st_ino, seen.st_size, seen.st_mtime_ns
