"""Tests of runtimes.telemetry with file trees like a board's sysfs, and scripts in place of its commands."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from runtimes import telemetry
from runtimes.telemetry import UNKNOWN, Telemetry, read, throttled_between

JETSON = {
    "devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
    "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1728000",
    "devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "1728000",
    "devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1728000",
    "class/devfreq/17000000.gpu/cur_freq": "1020000000",
    "class/devfreq/17000000.gpu/min_freq": "306000000",
    "class/devfreq/17000000.gpu/max_freq": "1020000000",
    "class/thermal/thermal_zone0/type": "cpu-thermal",
    "class/thermal/thermal_zone0/temp": "46531",
    "class/thermal/thermal_zone1/type": "cv0-thermal",  # is off: there is no temperature
    "class/thermal/cooling_device0/type": "pwm-fan",
    "class/thermal/cooling_device0/cur_state": "2",
    "class/thermal/cooling_device1/type": "cpu-throttle-alert",
    "class/thermal/cooling_device1/cur_state": "0",
    "class/hwmon/hwmon1/name": "ina3221",
    "class/hwmon/hwmon1/in1_label": "VDD_IN",
    "class/hwmon/hwmon1/in1_input": "5072",
    "class/hwmon/hwmon1/curr1_input": "1000",
    "class/hwmon/hwmon2/name": "soctherm_oc",
    "class/hwmon/hwmon2/oc3_event_cnt": "4",
}
TEGRASTATS = (
    "11-23-2026 18:00:00 RAM 2351/7620MB (lfb 4x4MB) CPU [0%@1510,off] EMC_FREQ 3%@3199 GR3D_FREQ 7%@[918] "
    "cpu@46.5C tj@47C VDD_IN 4712mW/4700mW VDD_SOC 1440mW/1441mW"
)
JETSON_CLOCKS = """GPU MinFreq=306000000 MaxFreq=1020000000 CurrentFreq=612000000
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=3199000000 FreqOverride=1
"""
PI_POWER = """     3V3_SYS_A current(1)=0.5A
     VDD_CORE_A current(7)=2.0A
    3V3_SYS_V volt(9)=3.3V
   VDD_CORE_V volt(15)=0.9V
      EXT5V_V volt(24)=5.1V
"""
X86 = {
    "firmware/acpi/platform_profile": "balanced",
    "devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "3400123",
    "devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "800000",
    "devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "4700000",
    "devices/system/cpu/cpu10/cpufreq/scaling_governor": "performance",
    "devices/system/cpu/cpu10/cpufreq/scaling_cur_freq": "1000000",
    "devices/system/cpu/cpu2/cpufreq/scaling_cur_freq": "2000000",
    "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
    "devices/system/cpu/cpu10/thermal_throttle/core_throttle_count": "4",
    "devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "0",
    "class/hwmon/hwmon0/name": "coretemp",
    "class/hwmon/hwmon0/temp1_label": "Package id 0",
    "class/hwmon/hwmon0/temp1_input": "51000",
    "class/hwmon/hwmon0/temp2_input": "49500",
    "class/thermal/cooling_device0/type": "Processor",
    "class/thermal/cooling_device0/cur_state": "1",
    "class/powercap/intel-rapl:0/name": "package-0",
    "class/powercap/intel-rapl:0/energy_uj": "12500000",
}
EVERYTHING_UNKNOWN = Telemetry(*[UNKNOWN] * 11, monotonic_s=0.0)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a maker of commands that print a text; there are no others but `timeout` and the shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("timeout", "sh", "cat", "sleep"):
        (folder / name).symlink_to(
            next(path for path in (Path("/usr/bin") / name, Path("/bin") / name) if path.exists())
        )
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, prints: str, then: str = "exit 0", expects: str = "") -> None:
        (folder / f"{name}.txt").write_text(prints)
        check = f'[ "$*" = "{expects}" ] || exit 9\n' if expects else ""
        (folder / name).write_text(f"#!{folder / 'sh'}\n{check}cat {folder / name}.txt\n{then}\n")
        (folder / name).chmod(stat.S_IRWXU)

    return make


def tree(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


def test_nothing_is_fine_where_nothing_is_told(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert replace(found, monotonic_s=0.0) == EVERYTHING_UNKNOWN
    assert json.loads(json.dumps(found.to_json())) == asdict(found)


def test_a_jetson_is_read_from_files_and_commands(tmp_path: Path, command: Callable[..., None]) -> None:
    command("nvpmodel", "NV Power Mode: MAXN_SUPER\n2\n", expects="-q")
    command("jetson_clocks", JETSON_CLOCKS, expects="--show")
    found = read(tree(tmp_path, JETSON))
    assert (found.power_mode, found.cpu_governor, found.cpu_mhz) == ("MAXN_SUPER", "schedutil", [1728.0])
    assert (found.gpu_mhz, found.memory_mhz, found.clocks_locked) == (1020.0, 3199.0, False)
    assert found.temperature_c == {"cpu-thermal": 46.531}
    assert found.throttling == []  # the fan runs, which slows nothing
    assert found.throttle_counts == {"soctherm_oc oc3": 4}
    assert found.power_w == {"VDD_IN": 5.072}


def test_clocks_are_locked_where_lowest_and_highest_are_the_same(tmp_path: Path) -> None:
    locked = {**JETSON, "class/devfreq/17000000.gpu/min_freq": "1020000000"}
    assert read(tree(tmp_path, locked)).clocks_locked is True


def test_a_jetson_that_slows_itself_is_told(tmp_path: Path) -> None:
    slowed = {**JETSON, "class/thermal/cooling_device1/cur_state": "1"}
    assert read(tree(tmp_path, slowed)).throttling == ["cooling by cpu-throttle-alert"]


def test_tegrastats_tells_what_files_do_not_and_is_stopped(tmp_path: Path, command: Callable[..., None]) -> None:
    command("tegrastats", TEGRASTATS + "\n", then="sleep 100", expects="--interval 100")
    found = read(tmp_path)
    assert found.power_w == {"VDD_IN": 4.712, "VDD_SOC": 1.44}
    assert found.temperature_c == {"cpu": 46.5, "tj": 47.0}
    assert (found.gpu_mhz, found.memory_mhz) == (918.0, 3199.0)
    assert found.throttling == UNKNOWN


@pytest.mark.parametrize(
    ("said", "now", "since_start"),
    [
        ("throttled=0x0", [], []),
        ("throttled=0x50005", ["under-voltage", "throttled"], ["under-voltage", "throttled"]),
        ("throttled=0x20000", [], ["frequency capped"]),
        ("throttled=0x8", ["temperature limit"], []),
    ],
)
def test_a_raspberry_pi_tells_why_it_slows(
    tmp_path: Path, command: Callable[..., None], said: str, now: list[str], since_start: list[str]
) -> None:
    command("vcgencmd", said, expects="get_throttled")
    found = read(tmp_path)
    assert found.throttling == now
    assert found.throttle_counts == {
        f"{name} since start": int(name in since_start) for name in telemetry.PI_THROTTLING
    }


def test_a_raspberry_pi_without_its_command_is_read_from_files(tmp_path: Path) -> None:
    path = "devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    assert read(tree(tmp_path, {path: "4"})).throttling == ["throttled"]


def test_the_rails_of_a_raspberry_pi_5_are_volts_by_amperes(tmp_path: Path, command: Callable[..., None]) -> None:
    command("vcgencmd", PI_POWER, expects="pmic_read_adc")
    assert read(tmp_path).power_w == {"3V3_SYS": 1.65, "VDD_CORE": 1.8}


def test_a_desktop_is_read_from_files(tmp_path: Path) -> None:
    found = read(tree(tmp_path, X86))
    assert (found.power_mode, found.cpu_governor) == ("balanced", "performance powersave")
    assert found.cpu_mhz == [3400.123, 2000.0, 1000.0]  # cores in the order of their numbers
    assert found.clocks_locked is False
    assert found.temperature_c == {"coretemp Package id 0": 51.0, "coretemp temp2": 49.5}
    assert found.throttling == ["cooling by Processor"]
    assert found.throttle_counts == {"core temperature": 7, "package temperature": 0}
    assert found.energy_j == {"package-0 0": 12.5}
    assert (found.gpu_mhz, found.memory_mhz, found.power_w) == (UNKNOWN, UNKNOWN, UNKNOWN)


@pytest.mark.parametrize(
    ("reasons", "throttling"),
    [("0x0", []), ("0x0000000000000001", []), ("0x44", ["GPU power cap", "GPU temperature (hardware)"])],
)
def test_a_desktop_gpu_is_asked_of_its_command(
    tmp_path: Path, command: Callable[..., None], reasons: str, throttling: list[str]
) -> None:
    command("nvidia-smi", f"1980, 61, 117.25, {reasons}\n")
    found = read(tmp_path)
    assert (found.gpu_mhz, found.temperature_c, found.power_w) == (1980.0, {"gpu": 61.0}, {"gpu": 117.25})
    assert found.throttling == throttling


def test_a_gpu_that_does_not_tell_is_unknown(tmp_path: Path, command: Callable[..., None]) -> None:
    command("nvidia-smi", "[N/A], [N/A], [N/A], [N/A]\n")
    assert replace(read(tmp_path), monotonic_s=0.0) == EVERYTHING_UNKNOWN


@pytest.mark.parametrize("name", ["nvpmodel", "jetson_clocks", "tegrastats", "vcgencmd", "nvidia-smi"])
def test_a_command_that_fails_or_talks_nonsense_tells_nothing(
    tmp_path: Path, command: Callable[..., None], name: str
) -> None:
    command(name, "throttled=0x? NV Power Mode: GPU CurrentFreq=", then="exit 1")
    assert replace(read(tmp_path), monotonic_s=0.0) == EVERYTHING_UNKNOWN


def test_a_command_that_hangs_tells_nothing(
    tmp_path: Path, command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "COMMAND_TIMEOUT_S", 0.2)
    command("nvpmodel", "NV Power Mode: 15W\n", then="exec sleep 100")
    command("tegrastats", "", then="exec sleep 100")
    assert replace(read(tmp_path), monotonic_s=0.0) == EVERYTHING_UNKNOWN


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_for_root_alone_is_unknown(tmp_path: Path) -> None:
    root = tree(tmp_path, X86)
    (root / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)
    assert read(root).energy_j == UNKNOWN


def test_garbage_in_a_file_is_unknown(tmp_path: Path) -> None:
    garbage = dict.fromkeys([name for name in X86 if not name.endswith(("type", "governor", "profile"))], "n/a")
    found = read(tree(tmp_path, {**X86, **garbage}))
    assert (found.cpu_mhz, found.temperature_c, found.throttling, found.energy_j) == (UNKNOWN,) * 4


# What lies between two readings

QUIET = replace(EVERYTHING_UNKNOWN, throttling=[], throttle_counts={"core temperature": 3}).to_json()


@pytest.mark.parametrize(
    ("after", "slowed"),
    [
        ({}, []),
        ({"throttle_counts": {"core temperature": 4}}, ["core temperature"]),
        ({"throttling": ["throttled"]}, ["throttled"]),
        ({"throttle_counts": UNKNOWN}, []),
        ({"throttle_counts": {"other": 9}}, []),
        ({"throttling": UNKNOWN}, []),
        ({"throttling": UNKNOWN, "throttle_counts": UNKNOWN}, UNKNOWN),
    ],
)
def test_what_slowed_a_measurement_is_told(after: dict[str, object], slowed: list[str] | str) -> None:
    assert throttled_between(QUIET, {**QUIET, **after}) == slowed


def test_what_nobody_tells_is_not_fine() -> None:
    nothing = EVERYTHING_UNKNOWN.to_json()
    assert throttled_between(nothing, nothing) == UNKNOWN
