"""The texts of systemd units: systemd.service(5), systemd.timer(5), systemd.exec(5)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path

MADE_BY = "# Made by `tagger schedule`"
"""The first line of each unit, by which tagger knows its own."""

STATE_FOLDER, CACHE_FOLDER = Path("/var/lib"), Path("/var/cache")
"""systemd makes a folder for each service there, which belongs to the user of the service."""

SYSTEM_CONFIG = Path("/etc/tagger/config.toml")
"""The config file of system services, in place of that of a user."""

HOME_FOLDERS = ("/home", "/root", "/run/user")
"""What ProtectHome hides."""

CONFINEMENT = """\
PrivateMounts=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectProc=invisible
NoNewPrivileges=yes
CapabilityBoundingSet=
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""
"""What no scan needs. These settings are missing:

MemoryDenyWriteExecute: PyTorch's oneDNN makes code as it runs ("could not create a primitive").
ProcSubset=pid: PyTorch reads /proc/cpuinfo ("Failed to initialize cpuinfo").
RestrictSUIDSGID: after `chmod -R 2775` files have the set-group-ID bit, and could not keep it.
PrivateUsers: files of other users would seem to belong to nobody.
PrivateNetwork, IPAddressDeny: models of the Hub, object storage, --notify, --ping-url.
SystemCallFilter=~@privileged: it has chown, which gives a file back to its group.
SystemCallFilter=~@resources: --gentle lowers priorities.
UMask=0077: other programs read the metrics and the page.
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a system service runs as, and what it needs. All paths are absolute.

    written: the folders that it writes into, beside its own for state and cache. read: what else it
    must see. uses_gpu: it needs the devices of this machine.
    """

    user: str
    written: Sequence[str]
    read: Sequence[str]
    uses_gpu: bool

    @property
    def needs_homes(self) -> bool:
        paths = map(Path, (*self.written, *self.read))
        return any(path.is_relative_to(home) for path in paths for home in HOME_FOLDERS)


@dataclass(frozen=True, slots=True)
class Service:
    """A command that systemd runs. behaviour: lines that say when the service counts as started."""

    name: str
    description: str
    command: Sequence[str]
    behaviour: Sequence[str]
    account: Account | None = None


def list_folder_variables(name: str) -> list[str]:
    """Return the variables by which a system service finds its config file and its cache."""
    return [
        f"XDG_CONFIG_HOME={SYSTEM_CONFIG.parents[1]}",
        f"XDG_CACHE_HOME={CACHE_FOLDER / name}",
    ]


def build_service(service: Service) -> str:
    """Return the text of a service. With an account, it is a system service, and confined."""
    account = service.account
    lines = [
        MADE_BY,
        "[Unit]",
        f"Description={service.description}",
        *(_list_paths("RequiresMountsFor", account.written) if account else []),
        "",
        "[Service]",
        *service.behaviour,
        f"ExecStart={' '.join(map(_quote_argument, service.command))}",
        "Nice=19",
        "CPUSchedulingPolicy=batch",
        "IOSchedulingClass=idle",
        f"SyslogIdentifier={service.name}",
        *(_confine(service.name, account) if account else []),
    ]
    return "\n".join(lines) + "\n"


def _confine(name: str, account: Account) -> list[str]:
    """Return the lines by which a service can do little more than a scan needs."""
    return [
        f"User={account.user}",
        f"StateDirectory={name}",
        "StateDirectoryMode=0750",
        f"CacheDirectory={name}",
        f"Environment={' '.join(map(_quote_word, list_folder_variables(name)))}",
        "ProtectSystem=strict",
        # without "-", systemd would not start the service if a folder is missing, and not say why
        *_list_paths("ReadWritePaths", [f"-{folder}" for folder in account.written]),
        f"ProtectHome={'read-only' if account.needs_homes else 'yes'}",
        *([] if account.uses_gpu else ["PrivateDevices=yes", "ProtectClock=yes"]),
        *CONFINEMENT.splitlines(),
    ]


def build_nightly_timer(at: time) -> str:
    """Return the text of a timer. A run that the machine missed is not made up for."""
    return f"""\
{MADE_BY}
[Unit]
Description=tagger every night

[Timer]
OnCalendar=*-*-* {at:%H:%M}:00

[Install]
WantedBy=timers.target
"""


def _list_paths(key: str, paths: Iterable[str]) -> list[str]:
    return [f"{key}={_quote_word(path)}" for path in paths]


def _quote_word(word: str) -> str:
    """Quote a word for a unit, which has its own specifiers and escapes."""
    for char, escaped in ("\\", "\\\\"), ('"', '\\"'), ("%", "%%"):
        word = word.replace(char, escaped)
    return f'"{word}"'


def _quote_argument(word: str) -> str:
    """Quote a word for ExecStart, which also has variables."""
    return _quote_word(word.replace("$", "$$"))
