"""Pressure from the files of control groups, in folders laid out like theirs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from interceptors.overload.pressure import Groups, Level, Pressure, PressureReading, PressureRules
from tests.kit.waiting import eventually

GIB = 1 << 30
STALLS = "some avg10={some:.2f} avg60=1.00 avg300=0.50 total=123456\nfull avg10={full:.2f} avg60=0.00 avg300=0.00 total=789\n"


def write(folder: Path, **files: str) -> Path:
    """`files`: by name, "_" for "."."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        dotted = name.replace("_", ".", 1)
        (folder / dotted).write_text(text)
    return folder


def version2(root: Path, path: str = "", **files: str) -> Path:
    write(root, cgroup_controllers="cpuset cpu io memory pids\n")
    return write(root / path, **files)


def own(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "self_cgroup"
    file.write_text(text)
    return file


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "cgroup"


def test_version_2_in_a_container(root, tmp_path) -> None:
    version2(
        root,
        memory_current=f"{3 * GIB}\n",
        memory_max=f"{4 * GIB}\n",
        memory_stat=f"anon {GIB}\nfile {2 * GIB}\ninactive_file {GIB}\nactive_file {GIB}\n",
        memory_pressure=STALLS.format(some=12.5, full=2.0),
        cpu_pressure=STALLS.format(some=40, full=0),
        cpu_stat="usage_usec 100\nuser_usec 60\nsystem_usec 40\nnr_periods 200\nnr_throttled 50\nthrottled_usec 9\n",
    )
    reading = Groups(root, own(tmp_path, "0::/\n")).read()
    assert reading == PressureReading(0.5, 0.125, 0.02, 0.4, 200, 50)


def test_the_tightest_limit_on_the_path_counts(root, tmp_path) -> None:
    version2(root, "kubepods/pod1", memory_current=f"{3 * GIB}\n", memory_max=f"{4 * GIB}\n")
    version2(root, "kubepods/pod1/app", memory_current=f"{GIB}\n", memory_max="max\n", cpu_stat="nr_periods 7\nnr_throttled 1\n")
    groups = Groups(root, own(tmp_path, "0::/kubepods/pod1/app\n"))
    assert groups.read().memory == 0.75
    assert groups.read().periods == 7
    for limit, share in ((2, 0.75), (1, 1.0)):
        write(root / "kubepods/pod1/app", memory_max=f"{limit * GIB}\n")
        assert groups.read().memory == share


def test_for_a_path_of_the_host_the_mounted_group_is_read(root, tmp_path) -> None:
    version2(root, memory_current="5\n", memory_max="10\n")
    for path in ("/system.slice/docker-1.scope", "/../../elsewhere", "relative"):
        assert Groups(root, own(tmp_path, f"0::{path}\n")).read().memory == 0.5
    assert Groups(root, tmp_path / "none").read().memory == 0.5


def test_version_1(root, tmp_path) -> None:
    write(
        root / "memory" / "docker" / "1",
        memory_usage_in_bytes=f"{3 * GIB}\n",
        memory_limit_in_bytes=f"{4 * GIB}\n",
        memory_stat=f"inactive_file 1\ntotal_inactive_file {GIB}\n",
    )
    write(root / "memory", memory_usage_in_bytes=f"{50 * GIB}\n", memory_limit_in_bytes="9223372036854771712\n")
    write(root / "cpu,cpuacct" / "docker" / "1", cpu_stat="nr_periods 10\nnr_throttled 4\nthrottled_time 1\n")
    found = Groups(root, own(tmp_path, "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n1:name=systemd:/docker/1\n0::/\n")).read()
    assert found == PressureReading(memory=0.5, periods=10, throttled=4)


def test_the_hybrid_layout_has_stalls_in_the_unified_tree(root, tmp_path) -> None:
    write(root / "memory", memory_usage_in_bytes="1\n", memory_limit_in_bytes="9223372036854771712\n")
    stalls = {"memory_pressure": STALLS.format(some=30, full=10), "cpu_pressure": STALLS.format(some=99, full=0)}
    write(root / "unified" / "app", cgroup_events="populated 1\n", **stalls)
    assert Groups(root, own(tmp_path, "2:memory:/\n0::/app\n")).read() == PressureReading(None, 0.3, 0.1, 0.99)


def test_the_stalls_of_the_machines_root_group_are_not_ours(root, tmp_path) -> None:
    stalls = {"memory_pressure": STALLS.format(some=30, full=10), "cpu_pressure": STALLS.format(some=99, full=0)}
    version2(root, cpu_stat="usage_usec 100\n", memory_stat="anon 1\n", **stalls)
    assert Groups(root, own(tmp_path, "0::/\n")).read().empty
    hybrid = tmp_path / "hybrid"
    write(hybrid / "unified", **stalls)
    assert Groups(hybrid, own(tmp_path, "2:memory:/\n0::/\n")).read().empty
    write(root, cgroup_events="populated 1\n")  # the group of a container, which is mounted there
    assert Groups(root, own(tmp_path, "0::/\n")).read().cpu_some == 0.99


MALFORMED = ["", "max\n", "-5\n", "1e9\n", "\x00\n", "some\n", "some avg10=\nfull avg10=x\n", "nr_periods\n", "garbage in here\n"]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_file_is_no_signal(root, tmp_path, text) -> None:
    names = ("memory_current", "memory_max", "memory_stat", "memory_pressure", "cpu_pressure", "cpu_stat")
    version2(root, **dict.fromkeys(names, text))
    assert Groups(root, own(tmp_path, text)).read().empty
    version2(root, memory_current="6\n", memory_max="10\n")
    assert Groups(root, own(tmp_path, "0::/\n")).read().memory == 0.6


def test_a_file_that_is_not_text_is_no_signal(root, tmp_path) -> None:
    version2(root)
    (root / "memory.pressure").write_bytes(b"some avg10=\xff\xfe")
    (root / "memory.max").mkdir()
    assert Groups(root, own(tmp_path, "0::/\n")).read().empty


class CountedGroups(Groups):
    readings = 0

    def read(self) -> PressureReading:
        self.readings += 1
        return super().read()


async def test_a_machine_without_control_groups_is_logged_once_and_has_no_pressure(tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    groups = CountedGroups(tmp_path / "none", tmp_path / "none")
    pressure = Pressure(groups, every=0.001)
    await pressure.start()
    await eventually(lambda: groups.readings > 5)
    await pressure.close()
    await pressure.close()
    assert pressure.level is Level.NONE
    assert len(caplog.records) == 1


async def test_readings_are_repeated(root, tmp_path) -> None:
    version2(root, memory_current="96\n", memory_max="100\n")
    pressure = Pressure(Groups(root, own(tmp_path, "0::/\n")), every=0.001)
    await pressure.start()
    assert pressure.level is Level.CRITICAL
    write(root, memory_current="10\n")
    await eventually(lambda: pressure.level is Level.NONE)
    await pressure.close()


@pytest.mark.parametrize(
    ("reading", "level"),
    [
        (PressureReading(), Level.NONE),
        (PressureReading(memory=0.84, memory_some=0.19, memory_full=0.24, cpu_some=0.94), Level.NONE),
        (PressureReading(memory=0.86), Level.ELEVATED),
        (PressureReading(memory_some=0.21), Level.ELEVATED),
        (PressureReading(cpu_some=0.96), Level.ELEVATED),
        (PressureReading(memory=0.95), Level.CRITICAL),
        (PressureReading(memory_full=0.3), Level.CRITICAL),
        (PressureReading(memory=0.96, cpu_some=0.1), Level.CRITICAL),
        (PressureReading(cpu_some=1.0, memory=0.1), Level.ELEVATED),
    ],
)
def test_levels(reading, level, tmp_path) -> None:
    pressure = Pressure(Groups(tmp_path, tmp_path / "none"))
    pressure.update(reading)
    assert pressure.level is level


def test_throttling_counts_since_the_last_reading(tmp_path) -> None:
    pressure = Pressure(Groups(tmp_path, tmp_path / "none"))
    seen = []
    for periods, throttled in ((1000, 1000), (1010, 1005), (1020, 1014), (1020, 1014), (1030, 1014)):
        pressure.update(PressureReading(periods=periods, throttled=throttled))
        seen.append(pressure.level)
    assert seen == [Level.NONE, Level.NONE, Level.ELEVATED, Level.NONE, Level.NONE]


def test_a_level_ends_a_little_below_where_it_began(tmp_path, caplog) -> None:
    pressure = Pressure(Groups(tmp_path, tmp_path / "none"), PressureRules(memory_elevated=0.5, memory_critical=0.9))
    seen = []
    for memory in (0.49, 0.5, 0.48, 0.46, 0.91, 0.88, 0.86, 0.4):
        pressure.update(PressureReading(memory=memory))
        seen.append(pressure.level.name[0])
    assert "".join(seen) == "NEENCCEN"
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 2
