"""Read the state of the machine: power mode, clocks, temperatures, throttling, power, energy.

A value that the system does not show is 'unknown'. The sources depend on the board:

    Jetson         nvpmodel, jetson_clocks (root), tegrastats; cpufreq, devfreq, thermal, INA3221 and soctherm in sysfs
    Raspberry Pi   vcgencmd get_throttled and pmic_read_adc; cpufreq, thermal and get_throttled in sysfs
    x86            cpufreq, thermal_throttle, hwmon and powercap (RAPL, often for root alone) in sysfs
    NVIDIA GPUs    nvidia-smi
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

from runtimes.files import Json, read_value

Unknown = Literal["unknown"]
UNKNOWN: Unknown = "unknown"
COMMAND_TIMEOUT_S = 5.0
Value = TypeVar("Value")

# The lowest bits of `vcgencmd get_throttled`; the same bits 16 places higher mean that it happened since boot.
PI_THROTTLING = ("under-voltage", "frequency capped", "throttled", "temperature limit")
# Bits of nvidia-smi's clocks_throttle_reasons.active that slow down a busy GPU (NVML, nvmlClocksEventReasons).
GPU_THROTTLING = {0x04: "GPU power cap", 0x08: "GPU hardware slowdown", 0x20: "GPU temperature (software)",
                  0x40: "GPU temperature (hardware)", 0x80: "GPU power brake"}  # fmt: skip
# Cooling devices that slow the processor down; fans and idle injectors do not.
SLOWING = re.compile("processor|cpufreq|devfreq|throttle", re.IGNORECASE)


@dataclass(frozen=True)
class Telemetry:
    """One reading of the machine's state; an empty list or mapping means that the system reports none.

    clocks_locked: whether minimum and maximum clock are equal for all CPU cores, and for a Jetson's GPU.
    cpu_mhz: of each core. throttling: present causes of throttling. throttle_counts: events since boot, by source.
    power_w, energy_j: by rail; energy counts from an arbitrary start. monotonic_s: time, for differences.
    """

    power_mode: str
    clocks_locked: bool | Unknown
    cpu_governor: str
    cpu_mhz: list[float] | Unknown
    gpu_mhz: float | Unknown
    memory_mhz: float | Unknown
    temperature_c: dict[str, float] | Unknown
    throttling: list[str] | Unknown
    throttle_counts: dict[str, int] | Unknown
    power_w: dict[str, float] | Unknown
    energy_j: dict[str, float] | Unknown
    monotonic_s: float

    def to_json(self) -> Json:
        """Return a value that JSON can hold."""
        return asdict(self)


def read(root: Path = Path("/")) -> Telemetry:
    """Read the machine's state from `root`/sys and the commands on PATH; takes up to a few seconds."""
    sysfs, commands = root / "sys", _Commands.run_all()
    return Telemetry(
        power_mode=_power_mode(sysfs, commands),
        clocks_locked=_clocks_locked(sysfs, commands),
        cpu_governor=" ".join(sorted(set(_texts(_cpufreq(sysfs, "scaling_governor"))))) or UNKNOWN,
        cpu_mhz=[khz / 1e3 for khz in _numbers(_cpufreq(sysfs, "scaling_cur_freq"))] or UNKNOWN,
        gpu_mhz=_gpu_mhz(sysfs, commands),
        memory_mhz=_memory_mhz(commands),
        temperature_c=_temperatures_c(sysfs, commands) or UNKNOWN,
        throttling=_throttling(sysfs, commands),
        throttle_counts=_throttle_counts(sysfs, commands) or UNKNOWN,
        power_w=_power_w(sysfs, commands) or UNKNOWN,
        energy_j=_energy_j(sysfs) or UNKNOWN,
        monotonic_s=round(time.monotonic(), 3),
    )


def counted_j(root: Path = Path("/")) -> dict[str, float]:
    """Return the energy counters in joules by rail, empty where the system has none; runs no command."""
    return _energy_j(root / "sys")


def watts_now(root: Path = Path("/")) -> dict[str, float]:
    """Return power in watts by rail, empty where the system does not show it; commands take up to 0.1 s."""
    return _power_w(root / "sys", _Commands.run_for_power())


def require_readings(readings: Json) -> None:
    """Raise KeyError or ValueError for readings (as JSON) that `throttled_between` can't compare."""
    for name in ("before", "after"):
        if not isinstance(readings[name], dict):
            raise ValueError(f"telemetry.{name} is no reading")
        read_value(list[str] | Unknown, readings[name]["throttling"])
        read_value(dict[str, int] | Unknown, readings[name]["throttle_counts"])


def throttled_between(before: Json, after: Json) -> list[str] | Unknown:
    """Return the causes of throttling at and between two readings (as JSON).

    Returns 'unknown' if none was found and the readings could not have shown one.
    """
    known = [name for name in ("throttling", "throttle_counts") if UNKNOWN not in (before[name], after[name])]
    present = [cause for reading in (before, after) for cause in _known(reading["throttling"], [])]
    earlier, later = (_known(reading["throttle_counts"], {}) for reading in (before, after))
    counted = [source for source, count in later.items() if source in earlier and count > earlier[source]]
    causes = list(dict.fromkeys([*present, *counted]))
    return causes if causes or known else UNKNOWN


def _known(value: Value | Unknown, otherwise: Value) -> Value:
    return otherwise if value == UNKNOWN else value


@dataclass(frozen=True)
class _Commands:
    """Output of the boards' commands; "" for a command that is missing or failed."""

    nvpmodel: str
    jetson_clocks: str
    tegrastats: str
    pi_throttled: str
    pi_power: str
    nvidia_smi: list[str]

    @classmethod
    def run_all(cls) -> _Commands:
        query = "clocks.sm,temperature.gpu,power.draw,clocks_throttle_reasons.active"
        output = _run("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "--id=0")
        columns = [column.strip() for column in output.split(",")]
        return cls(
            nvpmodel=_run("nvpmodel", "-q"),
            jetson_clocks=_run("jetson_clocks", "--show"),
            tegrastats=_first_line("tegrastats", "--interval", "100"),
            pi_throttled=_run("vcgencmd", "get_throttled"),
            pi_power=_run("vcgencmd", "pmic_read_adc"),
            nvidia_smi=columns if len(columns) == 4 else ["", "", "", ""],
        )

    @classmethod
    def run_for_power(cls) -> _Commands:
        """Run only the commands that report power."""
        watts = _run("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "--id=0").strip()
        tegrastats = _first_line("tegrastats", "--interval", "100")
        return cls("", "", tegrastats, "", _run("vcgencmd", "pmic_read_adc"), ["", "", watts, ""])


def _run(name: str, *arguments: str) -> str:
    program = shutil.which(name)
    if program is None:
        return ""
    try:
        completed = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return completed.stdout if completed.returncode == 0 else ""


def _first_line(name: str, *arguments: str) -> str:
    """Return the first line of a command that runs until it is stopped."""
    program = shutil.which("timeout") and shutil.which(name)
    if not program:
        return ""
    with suppress(OSError), subprocess.Popen(
        ["timeout", str(COMMAND_TIMEOUT_S), program, *arguments],  # noqa: S607 (found on PATH just now)
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        return line
    return ""


def _power_mode(sysfs: Path, commands: _Commands) -> str:
    profile = _text(sysfs / "firmware/acpi/platform_profile")
    return _match(r"NV Power Mode: *(\S+)", commands.nvpmodel) or profile or UNKNOWN


def _clocks_locked(sysfs: Path, commands: _Commands) -> bool | Unknown:
    cpu = [_numbers(_cpufreq(sysfs, name)) for name in ("scaling_min_freq", "scaling_max_freq")]
    gpu = [_numbers(_gpu_devfreq(sysfs, name)) for name in ("min_freq", "max_freq")]
    jetson = re.search(r"^GPU MinFreq=(\d+) MaxFreq=(\d+)", commands.jetson_clocks, re.MULTILINE)
    pairs = [*zip(*cpu, strict=False), *zip(*gpu, strict=False), *([jetson.groups()] if jetson else [])]
    return all(lowest == highest for lowest, highest in pairs) if pairs else UNKNOWN


def _gpu_mhz(sysfs: Path, commands: _Commands) -> float | Unknown:
    for hz in _numbers(_gpu_devfreq(sysfs, "cur_freq")):
        return hz / 1e6
    jetson_hz = _match(r"^GPU .*CurrentFreq=(\d+)", commands.jetson_clocks)
    if jetson_hz:
        return int(jetson_hz) / 1e6
    mhz = _match(r"GR3D_FREQ \d+%@\[?(\d+)", commands.tegrastats) or _match(r"^(\d+)$", commands.nvidia_smi[0])
    return float(mhz) if mhz else UNKNOWN


def _memory_mhz(commands: _Commands) -> float | Unknown:
    jetson_hz = _match(r"^EMC .*CurrentFreq=(\d+)", commands.jetson_clocks)
    mhz = _match(r"EMC_FREQ \d+%@(\d+)", commands.tegrastats)
    return int(jetson_hz) / 1e6 if jetson_hz else float(mhz) if mhz else UNKNOWN


def _temperatures_c(sysfs: Path, commands: _Commands) -> dict[str, float]:
    temperatures: dict[str, float] = {}
    for zone in _glob(sysfs, "class/thermal/thermal_zone*"):
        temperatures.update(_named(_text(zone / "type"), zone / "temp", 1e3))
    for chip, reading in _hwmon(sysfs, "temp*_input"):
        temperatures.update(_named(f"{chip} {_label(reading)}", reading, 1e3))
    if re.fullmatch(r"\d+", commands.nvidia_smi[1]):
        temperatures["gpu"] = float(commands.nvidia_smi[1])
    tegrastats = {name: float(celsius) for name, celsius in re.findall(r"(\w+)@(-?[\d.]+)C", commands.tegrastats)}
    return temperatures or tegrastats


def _throttling(sysfs: Path, commands: _Commands) -> list[str] | Unknown:
    """Return the present causes of throttling, UNKNOWN where no source is available."""
    causes: list[str] = []
    has_cooling = False
    for device in _glob(sysfs, "class/thermal/cooling_device*"):
        kind, state = _text(device / "type"), _number(device / "cur_state")
        if kind and state is not None and SLOWING.search(kind):
            has_cooling = True
            causes += [f"cooling by {kind}"] if state > 0 else []
    pi, gpu = _pi_bits(sysfs, commands), _match(r"^0x([0-9a-fA-F]+)$", commands.nvidia_smi[3])
    if pi is not None:
        causes += [name for bit, name in enumerate(PI_THROTTLING) if pi >> bit & 1]
    if gpu:
        causes += [name for bit, name in GPU_THROTTLING.items() if int(gpu, 16) & bit]
    return list(dict.fromkeys(causes)) if has_cooling or pi is not None or gpu else UNKNOWN


def _throttle_counts(sysfs: Path, commands: _Commands) -> dict[str, int]:
    counts: dict[str, int] = {}
    for kind in ("core", "package"):
        event_counts = _numbers(_glob(sysfs, f"devices/system/cpu/cpu[0-9]*/thermal_throttle/{kind}_throttle_count"))
        counts.update({f"{kind} temperature": int(sum(event_counts))} if event_counts else {})
    for chip, reading in _hwmon(sysfs, "oc*_event_cnt"):
        events = _number(reading)
        counts.update({} if events is None else {f"{chip} {reading.name.partition('_')[0]}": int(events)})
    pi = _pi_bits(sysfs, commands)
    if pi is not None:
        counts.update({f"{name} since start": pi >> (16 + bit) & 1 for bit, name in enumerate(PI_THROTTLING)})
    return counts


def _power_w(sysfs: Path, commands: _Commands) -> dict[str, float]:
    power_w = {rail: int(milliwatts) / 1e3 for rail, milliwatts in re.findall(r"(\w+) (\d+)mW", commands.tegrastats)}
    amperes = dict(re.findall(r"(\w+)_A current\(\d+\)=([\d.]+)A", commands.pi_power))
    volts = dict(re.findall(r"(\w+)_V volt\(\d+\)=([\d.]+)V", commands.pi_power))
    power_w.update({rail: float(ampere) * float(volts[rail]) for rail, ampere in amperes.items() if rail in volts})
    for _, reading in _hwmon(sysfs, "curr*_input"):  # INA3221: milliamperes, with millivolts under the same number
        voltage = reading.with_name(reading.name.replace("curr", "in"))
        rail, milliamperes, millivolts = _label(voltage), _number(reading), _number(voltage)
        if milliamperes is not None and millivolts is not None:
            power_w[rail] = milliamperes * millivolts / 1e6
    for pattern in ("power*_input", "power*_average"):
        for chip, reading in _hwmon(sysfs, pattern):
            power_w.update(_named(f"{chip} {_label(reading)}", reading, 1e6))
    if re.fullmatch(r"[\d.]+", commands.nvidia_smi[2]):
        power_w["gpu"] = float(commands.nvidia_smi[2])
    return {rail: round(watts, 4) for rail, watts in power_w.items()}


def _energy_j(sysfs: Path) -> dict[str, float]:
    energy_j: dict[str, float] = {}
    for zone in _glob(sysfs, "class/powercap/intel-rapl:*"):
        energy_j.update(_named(f"{_text(zone / 'name')} {zone.name.partition(':')[2]}", zone / "energy_uj", 1e6))
    return energy_j


def _pi_bits(sysfs: Path, commands: _Commands) -> int | None:
    digits = _match(r"throttled=0x([0-9a-fA-F]+)", commands.pi_throttled)
    for path in _glob(sysfs, "devices/platform/soc*/*:firmware/get_throttled"):
        digits = digits or _text(path)
    with suppress(TypeError, ValueError):
        return int(digits, 16)  # type: ignore[arg-type]
    return None


def _cpufreq(sysfs: Path, name: str) -> list[Path]:
    return _glob(sysfs, f"devices/system/cpu/cpu[0-9]*/cpufreq/{name}")


def _gpu_devfreq(sysfs: Path, name: str) -> list[Path]:
    """Return the files of a Jetson's GPU: 17000000.gpu on Orin, 17000000.ga10b or .gv11b with older JetPacks."""
    return [path / name for path in _glob(sysfs, "class/devfreq/*") if re.search("gpu|ga10b|gv11b|gp10b", path.name)]


def _hwmon(sysfs: Path, pattern: str) -> list[tuple[str, Path]]:
    """Return (chip, file) for the readings of all hardware monitors."""
    return [(_text(path.parent / "name") or "hwmon", path) for path in _glob(sysfs, f"class/hwmon/hwmon*/{pattern}")]


def _label(reading: Path) -> str:
    """Return the name of a hardware monitor's `in1_input`: the content of `in1_label`, or `in1`."""
    stem = reading.name.rpartition("_")[0]
    return _text(reading.with_name(f"{stem}_label")) or stem


def _named(name: str | None, path: Path, per_unit: float) -> dict[str, float]:
    number = _number(path)
    return {} if name is None or number is None else {name: round(number / per_unit, 4)}


def _glob(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda path: [int(part) if part.isdecimal() else part
                                                          for part in re.split(r"(\d+)", str(path))])  # fmt: skip


def _match(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None


def _text(path: Path) -> str | None:
    """Return the content of a sysfs file, None if it is missing or unreadable, as for a sensor that is off."""
    try:
        return path.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _number(path: Path) -> float | None:
    with suppress(TypeError, ValueError):
        return float(_text(path))  # type: ignore[arg-type]
    return None


def _texts(paths: Iterable[Path]) -> list[str]:
    return [text for text in map(_text, paths) if text is not None]


def _numbers(paths: Iterable[Path]) -> list[float]:
    return [number for number in map(_number, paths) if number is not None]
