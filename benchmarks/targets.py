"""What asyncsaver should reach in one run, and whether it did. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from results import Results

GIB = 2**30
MIB = 2**20
SLOW, LOOP, DISK = "s3-slow", "s3", "disk"
GCS, AZURE, FSSPEC_ENGINE = "gcs", "azure", "asyncsaver, fsspec"
OBSTORE, RAW_DISK = "obstore, ", "raw O_DIRECT, 4 threads"
GCSFS, ADLFS = "gcsfs _pipe_file, ", "adlfs _pipe_file, "
TENSORFLOW, OUR_TENSORFLOW = "tensorflow", "asyncsaver, TensorFlow's files"
FSSPEC, CONNECTOR, S3FS = "DCP FsspecWriter", "DCP s3torchconnector", "s3fs _pipe_file, 16 at once"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target.

    Attributes:
        what: it is about.
        wanted: in words.
        found: the same for what was measured.
        met: None where it was not measured.
    """

    what: str
    wanted: str
    found: str = "not measured"
    met: bool | None = None

    @property
    def word(self) -> str:
        """For the table."""
        return "not measured" if self.met is None else "pass" if self.met else "falls short"


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a run.

    Attributes:
        results: of the run.
        ours: which peer is judged.
        nbytes: of the usual state.
    """

    results: Results
    ours: str
    nbytes: int

    def verdicts(self) -> Iterator[Verdict]:
        """All of them, in order."""
        for what, factors in (("save", (8, 8, 4)), ("restore", (5, 5, None))):
            yield self._times(SLOW, what, OBSTORE, 0.9)
            for peer, factor in zip((FSSPEC, CONNECTOR, S3FS), factors, strict=True):
                if factor is not None:
                    yield self._times(SLOW, what, peer, factor)
        for what in ("save", "restore"):
            yield self._times(LOOP, what, OBSTORE, 0.9)
            yield self._times(LOOP, what, FSSPEC, 3)
        yield self._cpu()
        yield self._against_all(DISK, "save")
        yield self._times(DISK, "save", RAW_DISK, 0.85)
        yield self._against_all(DISK, "restore")
        for scenario in ("memory-s3", "memory-disk"):
            for what in ("save", "restore"):
                yield self._memory(scenario, what)
        yield self._staging()
        for scenario in (SLOW, LOOP, DISK):
            for what in ("save", "restore"):
                yield self._stall(scenario, what)
        for kind, how in (("disk", "fsync"), ("s3", "obstore")):
            scenario = f"small-100k-{kind}"
            for what in ("save", "restore"):
                yield self._times(scenario, what, f"torch.save + {how}", 1)
                yield self._times(scenario, what, f"safetensors + {how}", 1 / 1.5)
        yield self._objects("small-100k-s3", 20)
        yield self._requests_of_save()
        yield self._requests_of_restore()
        for scenario, peer in ((GCS, GCSFS), (AZURE, ADLFS)):
            for what in ("save", "restore"):
                yield self._times(scenario, what, peer, 0.9, FSSPEC_ENGINE)
        for peer in ("tf.train.Saver", "tf.train.Checkpoint"):
            for what in ("save", "restore", "restore, warm"):
                yield self._times(TENSORFLOW, what, peer, 1, OUR_TENSORFLOW)
                yield self._half_of_the_memory(TENSORFLOW, what, peer, OUR_TENSORFLOW)

    def _times(self, scenario: str, what: str, peer: str, factor: float, subject: str = "") -> Verdict:
        """How many times as fast as a peer, or as the fastest of those whose name begins with ``peer``, ours or another is."""
        rival = peer if peer in self.results.peers(scenario) else self._fastest_raw(scenario, what, peer)
        name = f"{peer.rstrip(', ')} at its best" if peer.endswith(", ") else peer
        title, wanted = f"{scenario}: {what} against {name}", f"≥ {factor:.3g}x"
        ours = self.results.median(scenario, subject or self.ours, what, "seconds")
        theirs = rival and self.results.median(scenario, rival, what, "seconds")
        if not ours or not theirs:
            return Verdict(title, wanted)
        return Verdict(title, wanted, f"{theirs / ours:.2f}x", theirs / ours >= factor)

    def _fastest_raw(self, scenario: str, what: str, prefix: str) -> str | None:
        found = [
            (seconds, peer)
            for peer in self.results.peers(scenario)
            if peer.startswith(prefix) and (seconds := self.results.median(scenario, peer, what, "seconds"))
        ]
        return min(found)[1] if found else None

    def _against_all(self, scenario: str, what: str) -> Verdict:
        subject, wanted = f"{scenario}: {what} against the fastest durable peer", "≥ 1x"
        ours = self.results.median(scenario, self.ours, what, "seconds")
        others = [
            (seconds, peer)
            for peer in self.results.peers(scenario)
            if not peer.startswith(("asyncsaver", "raw "))
            and (seconds := self.results.median(scenario, peer, what, "seconds"))
        ]
        if not ours or not others:
            return Verdict(subject, wanted)
        theirs, rival = min(others)
        return Verdict(subject, wanted, f"{theirs / ours:.2f}x ({rival})", theirs >= ours)

    def _cpu(self) -> Verdict:
        subject, wanted = f"{LOOP}: CPU of a save above obstore's", "≤ 0.3 s/GiB"
        rival = self._fastest_raw(LOOP, "save", OBSTORE)
        ours = self.results.median(LOOP, self.ours, "save", "cpu")
        theirs = rival and self.results.median(LOOP, rival, "save", "cpu")
        if ours is None or not theirs:
            return Verdict(subject, wanted)
        extra = (ours - theirs) / (self.nbytes / GIB)
        return Verdict(subject, wanted, f"{extra:.2f} s/GiB", extra <= 0.3)

    def _memory(self, scenario: str, what: str) -> Verdict:
        subject, wanted = f"{scenario}: extra memory of a {what}", "≤ 300 MiB"
        used = self.results.median(scenario, f"{self.ours}, 256 MiB", what, "memory")
        if used is None:
            return Verdict(subject, wanted)
        return Verdict(subject, wanted, f"{used / MIB:.0f} MiB", used <= 300 * MIB)

    def _half_of_the_memory(self, scenario: str, what: str, peer: str, subject: str) -> Verdict:
        title, wanted = f"{scenario}: extra memory of a {what} against {peer}", "< 0.5x"
        ours = self.results.median(scenario, subject, what, "memory")
        theirs = self.results.median(scenario, peer, what, "memory")
        if ours is None or theirs is None:
            return Verdict(title, wanted)
        return Verdict(title, wanted, f"{ours / MIB:.0f} of {theirs / MIB:.0f} MiB", ours < theirs / 2)

    def _staging(self) -> Verdict:
        subject, wanted = "staging of a background save against np.copyto", "≤ 1.25x its time"
        ours = self.results.median("staging", "asyncsaver, staging", "save", "seconds")
        theirs = self.results.median("staging", "np.copyto", "save", "seconds")
        if not ours or not theirs:
            return Verdict(subject, wanted)
        return Verdict(subject, wanted, f"{ours / theirs:.2f}x", ours <= 1.25 * theirs)

    def _stall(self, scenario: str, what: str) -> Verdict:
        subject, wanted = f"{scenario}: worst stall of the event loop, {what}", "≤ 10 ms, or obstore's"
        ours = self.results.median(scenario, self.ours, what, "stall")
        if ours is None:
            return Verdict(subject, wanted)
        beside = LOOP if scenario == DISK else scenario  # obstore writes to no disk; the machine is the same
        rival = self._fastest_raw(beside, what, OBSTORE)
        allowed = max(0.010, (rival and self.results.median(beside, rival, what, "stall")) or 0)
        return Verdict(subject, wanted, f"{ours * 1000:.0f} ms (of {allowed * 1000:.0f})", ours <= allowed)

    def _objects(self, scenario: str, limit: int) -> Verdict:
        subject, wanted = f"{scenario}: PUTs of a save", f"≤ {limit}"
        if not self.results.has(scenario, self.ours):
            return Verdict(subject, wanted)
        requests = self.results.last(scenario, self.ours, "save")["requests"]
        count = requests.get("put", 0) + requests.get("put_part", 0)
        return Verdict(subject, wanted, str(count), count <= limit)

    def _requests_of_save(self) -> Verdict:
        subject, wanted = f"{LOOP}: requests of a save", "shards + ranks + 3 objects, ≤ 2 LISTs"
        last = self.results.last(LOOP, self.ours, "save")
        if not last:
            return Verdict(subject, wanted)
        requests, shards = last["requests"], last["shards"]
        made, lists = requests.get("put", 0) + requests.get("complete_upload", 0), requests.get("list", 0)
        found = f"{made} objects for {shards} shards, {lists} LISTs"
        return Verdict(subject, wanted, found, made <= shards + 4 and lists <= 2)

    def _requests_of_restore(self) -> Verdict:
        subject, wanted = f"{LOOP}: requests of a restore of the latest", "≤ 2 LISTs + 2 GETs + data"
        last = self.results.last(LOOP, self.ours, "restore")
        if not last:
            return Verdict(subject, wanted)
        requests = last["requests"]
        lists, gets, data = requests.get("list", 0), requests.get("get", 0), requests.get("get_range", 0)
        more = sum(requests.values()) - lists - gets - data
        found = f"{lists} LISTs, {gets} GETs, {more} others, {data} ranges of data"
        return Verdict(subject, wanted, found, lists <= 2 and gets <= 2 and more == 0)
