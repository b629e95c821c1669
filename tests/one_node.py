"""A real one-node Slurm on this machine, for tests: munged, slurmctld and slurmd run in a folder."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager

PROGRAMS = ("sbatch", "slurmctld", "slurmd", "munged", "scancel", "squeue", "scontrol")

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=30
InactiveLimit=0
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why there can be no Slurm here; empty if there can be."""
    if os.geteuid() != 0:
        return "a Slurm of one node has to be started by root"
    lacking = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    return f"{', '.join(lacking)} not installed (Debian: slurm-wlm, munge)" if lacking else ""


def _path():
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


@contextmanager
def running(folder):
    """Start it; yields the environment in which sbatch and the other commands find it."""
    folder.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 // 2
    host = socket.gethostname().split(".")[0]
    conf = CONF.format(folder=folder, host=host, cpus=os.cpu_count(), memory=memory,
                       controller=_free(), node=_free())  # fmt: skip
    (folder / "slurm.conf").write_text(conf)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}",
             f"--log-file={folder}/munged.log", f"--pid-file={folder}/munged.pid",
             f"--seed-file={folder}/munged.seed"]  # fmt: skip
    with ExitStack() as stack:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            with open(folder / f"{command[0]}.out", "w") as log:
                process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(_end, process)
            if command[0] == "munged":
                _wait((folder / "munge.socket").exists, process)
        _wait(lambda: "idle" in _asked(environment, "sinfo", "-h", "-o", "%T"), process)
        yield environment
        _asked(environment, "scancel", "--user=root")
        _wait(lambda: not queued(environment), process)


def queued(environment, *options):
    """squeue's lines for jobs that have not ended: their numbers and states."""
    return _asked(environment, "squeue", "-h", "-r", "-o", "%i %T", *options).splitlines()


def _asked(environment, *command):
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


def _free():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _wait(condition, process):
    end = time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args[0]} does not start")
        time.sleep(0.1)


def _end(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
