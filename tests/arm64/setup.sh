#!/bin/sh
# Put an arm64 Python with NumPy and ONNX Runtime, and the emulator that runs it, into a folder; some 250 MB, a minute.
#
#     tests/arm64/setup.sh FOLDER [PYTHON]
#
# Needs Debian or Ubuntu's apt-get and dpkg, but not root: nothing is installed. A step that is done is not done again.
# PYTHON (default python3) is the one whose versions of NumPy and ONNX Runtime are taken over.
set -eu

[ $# -ge 1 ] || { echo "usage: $0 FOLDER [PYTHON]" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
python=${2:-python3}
root=$folder/root
for need in apt-get apt-config dpkg; do
    command -v "$need" >/dev/null || { echo "$0: needs $need, which Debian and Ubuntu have" >&2; exit 1; }
done

step() { # step NAME FUNCTION: call it unless it was finished before
    [ -e "$folder/$1.done" ] && return
    echo "arm64: $1"
    "$2" >"$folder/$1.log" 2>&1 || { cat "$folder/$1.log" >&2; echo "$0: step $1 failed" >&2; exit 1; }
    : >"$folder/$1.done"
}

emulator() (
    mkdir -p "$folder/emulator"
    cd "$folder/emulator"
    apt-get download qemu-user-static
    dpkg -x qemu-user-static_*.deb .
    cp usr/bin/qemu-aarch64-static "$folder/qemu-aarch64"
    rm -r "$folder/emulator"
)

packages() ( # apt with a state of its own, the machine's sources and connection, and no machine's packages: gets them all
    apt=$folder/apt
    mkdir -p "$apt/etc/apt/sources.list.d" "$apt/state/lists/partial" "$apt/cache/archives/partial" "$root"
    cp /etc/apt/sources.list "$apt/etc/apt/" 2>/dev/null || :
    for list in debian ubuntu; do
        cp "/etc/apt/sources.list.d/$list.sources" "$apt/etc/apt/sources.list.d/" 2>/dev/null || :
    done
    : >"$apt/status"
    {
        apt-config dump | grep '^Acquire::' || :
        echo "Dir \"$apt\"; Dir::State \"state\"; Dir::State::status \"$apt/status\"; Dir::Cache \"cache\";"
        echo 'Dir::Etc::trusted "/etc/apt/trusted.gpg"; Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d/";'
        echo 'APT::Architecture "arm64"; APT::Architectures { "arm64"; }; APT::Sandbox::User "root";'
    } >"$apt/apt.conf"
    export APT_CONFIG="$apt/apt.conf"
    apt-get update
    apt-get --yes --download-only --no-install-recommends install python3 libstdc++6 libgomp1
    for package in "$apt"/cache/archives/*.deb; do
        dpkg -x "$package" "$root"
    done
    rm -r "$apt"
)

processor() ( # ONNX Runtime reads what the processor is from files; the emulator shows x86's unless these are there
    cpus="$root/sys/devices/system/cpu"
    mkdir -p "$root/proc" "$cpus"
    : >"$root/proc/cpuinfo"
    echo 1 >"$cpus/kernel_max"
    for name in possible present online; do echo 0-1 >"$cpus/$name"; done
    for cpu in 0 1; do
        mkdir -p "$cpus/cpu$cpu/topology" "$cpus/cpu$cpu/cpufreq"
        echo 0 >"$cpus/cpu$cpu/topology/physical_package_id"
        echo "$cpu" >"$cpus/cpu$cpu/topology/core_id"
        echo 0-1 >"$cpus/cpu$cpu/topology/core_siblings_list"
        echo "$cpu" >"$cpus/cpu$cpu/topology/thread_siblings_list"
        for name in cpuinfo_max_freq cpuinfo_min_freq; do echo 2000000 >"$cpus/cpu$cpu/cpufreq/$name"; done
        cat >>"$root/proc/cpuinfo" <<CPU
processor       : $cpu
BogoMIPS        : 50.00
Features        : fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer : 0x41
CPU architecture: 8
CPU variant     : 0x0
CPU part        : 0xd42
CPU revision    : 1

CPU
    done
)

wheels() (
    version=$(basename "$(ls "$root"/usr/bin/python3.[0-9]* | head -n 1)")
    rm -rf "$folder/site"
    "$python" -m pip install --disable-pip-version-check --target "$folder/site" --only-binary=:all: \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        --implementation cp --python-version "${version#python}" $versions
)

versions=$("$python" -c 'import importlib.metadata as m; print(*(f"{p}=={m.version(p)}" for p in ("numpy", "onnxruntime")))')
step emulator emulator
step packages packages
step processor processor
step "wheels-$(echo "$versions" | tr ' =' '--')" wheels
cat >"$folder/python" <<RUN
#!/bin/sh
# The arm64 Python under emulation; ARM64_CPU names the processor (neoverse-n1 is near the Orin's and the Pi 5's).
exec "$folder/qemu-aarch64" -cpu "\${ARM64_CPU:-neoverse-n1}" -L "$root" -E PYTHONPATH="$folder/site:\${PYTHONPATH:-}" \\
    "$(ls "$root"/usr/bin/python3.[0-9]* | head -n 1)" "\$@"
RUN
chmod +x "$folder/python"
