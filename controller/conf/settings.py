"""Every option there is: its section, type, default, unit and meaning, written once.

``options.py`` makes oslo.config options of these, ``load.py`` reads a file into them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
    secret: bool = False,
) -> Any:
    """One option: a dataclass field that knows what oslo.config wants to know."""
    metadata = {"help": help, "min": minimum, "max": maximum, "choices": choices, "secret": secret}
    if isinstance(default, list):
        return field(default_factory=lambda: tuple(default), metadata={**metadata, "default": default})
    return field(default=default, metadata={**metadata, "default": default})


@dataclass(frozen=True)
class General:
    """What every service of a cloud shares."""

    state_dir: str = option("/var/lib/pileus", "Folder below which everything of this cloud lives.")
    cloud_id: str = option(
        "00000000",
        "8 hexadecimal digits that mark what this cloud owns on a host: bridges, taps, domains, nftables tables. "
        "Two clouds on one machine need two ids.",
    )
    host: str = option("", "Name of this host in the cloud; empty: the machine's hostname.")
    log_level: str = option(
        "INFO", "Least level that is logged; read again at SIGHUP.", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    log_format: str = option("text", "Form of the log lines.", choices=("text", "json"))


@dataclass(frozen=True)
class Database:
    """The database: SQLite on one machine, PostgreSQL or MariaDB for a site."""

    url: str = option(
        "",
        "SQLAlchemy URL: postgresql+psycopg://user:password@db/pileus or mysql+pymysql://user:password@db/pileus. "
        "Empty: SQLite at <state_dir>/pileus.db.",
        secret=True,
    )
    pool_size: int = option(10, "Connections kept open by one process.", minimum=1)
    max_overflow: int = option(12, "Connections beyond pool_size under load.", minimum=0)
    pool_timeout_s: int = option(10, "Seconds to wait for a connection.", minimum=1)
    lock_timeout_s: int = option(30, "Seconds to wait for a lock (SQLite: for the writer).", minimum=1)
    answer_timeout_s: int = option(
        60,
        "Seconds to wait for the answer to a statement; a server that is silent for longer is taken for gone. "
        "More than lock_timeout_s.",
        minimum=1,
    )
    idle_transaction_s: int = option(
        60,
        "Seconds after which the server ends a transaction whose process says nothing any more, and frees its locks.",
        minimum=1,
    )
    retries: int = option(8, "How often a transaction that lost a race or a deadlock is tried.", minimum=1)


@dataclass(frozen=True)
class Bus:
    """The message bus: in the process's memory on one machine, RabbitMQ for a site."""

    url: str = option(
        "memory://",
        "kombu URL: memory:// or amqp://user:password@broker1//;amqp://user:password@broker2//",
        secret=True,
    )
    publish_timeout_s: float = option(3.0, "Seconds until a message must be confirmed by the broker.", minimum=0.1)
    retry_after_s: float = option(
        2.0, "After a failed publish: seconds in which no doorbell is tried; the sweep sends them later.", minimum=0
    )
    prefetch: int = option(16, "Messages that a consumer holds unacknowledged.", minimum=1, maximum=1000)
    batch: int = option(
        200, "Messages that are handled in one transaction, where they can be.", minimum=1, maximum=5000
    )
    linger_ms: int = option(20, "Milliseconds in which a batch may grow after its first.", minimum=0, maximum=1000)
    max_attempts: int = option(8, "Deliveries of one message before it goes to the dead letters.", minimum=1)
    heartbeat_s: int = option(15, "AMQP heartbeat.", minimum=3)
    max_queue_length: int = option(
        100000, "Messages that a queue holds at most; the oldest doorbell goes.", minimum=100
    )
    max_heartbeats: int = option(
        20000,
        "Heartbeats that wait at most; the oldest goes, for a newer one supersedes it. More than the site's hosts.",
        minimum=100,
    )


@dataclass(frozen=True)
class Api:
    """The doors."""

    listen_host: str = option("127.0.0.1", "Address the API listens on.")
    listen_port: int = option(8773, "Port the API listens on.", minimum=0, maximum=65535)
    public_url: str = option("", "URL under which clients and agents reach the API; empty: made of host and port.")
    threads: int = option(8, "Requests handled at once.", minimum=1, maximum=256)
    max_body_bytes: int = option(1048576, "Largest request body.", minimum=1024)
    clock_window_s: int = option(900, "Largest difference between a client's clock and ours.", minimum=1)
    region: str = option("pileus", "Name of the only region.")
    zone: str = option("pileus-1", "Availability zone of hosts that name none.")
    console_timeout_s: float = option(5.0, "Seconds to wait for an agent's answer to GetConsoleOutput.", minimum=0.1)
    deleted_visible_s: int = option(3600, "Seconds that a terminated instance is still described.", minimum=0)


@dataclass(frozen=True)
class Auth:
    """Keys and credentials."""

    secret_key_file: str = option(
        "", "File with the key that encrypts access-key secrets in the database; empty: <state_dir>/secret.key."
    )


@dataclass(frozen=True)
class Controller:
    """Sweeps: how soon what was lost is found again."""

    sweep_s: float = option(1.0, "Seconds between two sweeps.", minimum=0.05)
    ring_after_s: float = option(5.0, "Seconds in a transitional state before its doorbell is sent again.", minimum=0.1)
    ring_max_s: float = option(60.0, "Longest pause between two doorbells for one instance.", minimum=1)
    host_down_after_s: float = option(45.0, "Seconds without a heartbeat until a host is down.", minimum=1)
    clock_skew_warn_s: float = option(
        30.0,
        "Difference of clocks from which on a host's heartbeat is logged as a warning, and from which on a controller "
        "that differs from the database's server lets nothing expire and takes no host for lost. Keep it below "
        "host_down_after_s.",
        minimum=1,
    )
    command_expires_s: float = option(
        600.0,
        "Seconds for which a command to a host may be carried out; what is still wanted then is sent again anyway.",
        minimum=30,
    )
    stray_removals_per_heartbeat: int = option(
        10,
        "Guests removed at most after one heartbeat because they belong elsewhere, or nowhere.",
        minimum=0,
    )
    stray_removals_per_hour: int = option(
        100,
        "The same in an hour and the whole cloud; what exceeds it is held: see `pileus host show`.",
        minimum=0,
    )
    purge_deleted_after_s: int = option(86400, "Seconds until the row of a deleted instance is removed.", minimum=60)
    open_registration: str = option(
        "auto",
        "Whether a heartbeat registers a host that has not joined with a token; auto: only on the embedded bus, which "
        "no other machine reaches.",
        choices=("auto", "true", "false"),
    )


@dataclass(frozen=True)
class Scheduler:
    """Placement."""

    cpu_ratio: float = option(8.0, "vCPUs promised for each core of a host.", minimum=0.1)
    memory_ratio: float = option(1.0, "Memory promised for each MiB of a host.", minimum=0.1)
    disk_ratio: float = option(4.0, "Disk promised for each GiB of a host: overlays are thin.", minimum=0.1)
    strategy: str = option(
        "spread", "Whether to fill hosts one after the other, or evenly.", choices=("pack", "spread")
    )
    filters: tuple[str, ...] = option(
        ["alive", "in_service", "zone", "architecture", "hypervisor", "labels", "group", "capacity", "reserve"],
        "What a host must satisfy, asked in this order; the first refusal counts. "
        "Names of entry points of pileus.scheduler.filters.",
    )
    weighers: tuple[str, ...] = option(
        ["load:1.0", "image_present:0.1"],
        "name:weight of what makes a host better or worse; a negative weight turns it round, as strategy = pack does "
        "with load. Names of entry points of pileus.scheduler.weighers.",
    )
    reserved_host_share: float = option(
        0.0, "Share of each host that is never promised, for the filter reserve.", minimum=0, maximum=1
    )
    consumers: int = option(1, "Schedulers in one process.", minimum=1, maximum=16)


@dataclass(frozen=True)
class Network:
    """Networks of the projects and the services in them."""

    driver: str = option(
        "linux",
        "linux: real bridges, dnsmasq and nftables; none: rows only, for simulated hosts.",
        choices=("linux", "none"),
    )
    vlan_first: int = option(100, "First VLAN id for projects' networks.", minimum=1, maximum=4094)
    vlan_last: int = option(4094, "Last VLAN id for projects' networks.", minimum=1, maximum=4094)
    physical_network: str = option("default", "Name of the physical network that carries the VLANs.")
    trunk: str = option(
        "", "Interface that carries the VLANs of physical_network; empty: networks are local to their host."
    )
    project_cidr_pool: str = option("10.128.0.0/10", "Range out of which a project's first network is cut.")
    project_prefix_length: int = option(22, "Size of a project's first network.", minimum=16, maximum=28)
    dns_domain: str = option("pileus.internal", "Domain of the instances' names.")
    dns_servers: tuple[str, ...] = option([], "Upstream name servers for guests; empty: those of the network node.")
    lease_s: int = option(3600, "Length of a DHCP lease.", minimum=120)
    nat: bool = option(True, "Whether guests reach the outside through the network node.")
    metadata_port: int = option(8775, "Port of the metadata service on the guests' gateways.", minimum=1, maximum=65535)
    dnsmasq: str = option("/usr/sbin/dnsmasq", "The dnsmasq program.")


@dataclass(frozen=True)
class Compute:
    """The agent of one host."""

    driver: str = option("libvirt", "What runs the guests.", choices=("libvirt", "simulated"))
    libvirt_uri: str = option("", "libvirt connection; empty: <state_dir>/libvirt, started by quickstart.")
    domain_type: str = option("auto", "auto: kvm where it works, else qemu.", choices=("auto", "kvm", "qemu", "xen"))
    zone: str = option("", "Availability zone of this host; empty: [api] zone.")
    labels: tuple[str, ...] = option([], "Labels of this host, which types and images may require.")
    agent_bus_url: str = option(
        "",
        "Of the API: the bus URL given to hosts that join, of an account that may do less; empty: [bus] url.",
        secret=True,
    )
    mac_probe: str = option(
        "",
        "Program with its arguments that prints the MAC addresses which this host may carry, one a line; run without "
        "a shell. Its path is absolute. Empty: no probe.",
    )
    mac_probe_timeout_s: float = option(10.0, "Seconds until the MAC probe is killed.", minimum=0.1, maximum=600)
    mac_probe_every_s: float = option(300.0, "Seconds between two runs of the MAC probe.", minimum=0.1)
    vcpus: int = option(0, "Cores to offer; 0: what the machine has.", minimum=0)
    memory_mib: int = option(0, "Memory to offer; 0: what the machine has less reserved_memory_mib.", minimum=0)
    disk_gib: int = option(0, "Disk to offer; 0: what is free below state_dir.", minimum=0)
    reserved_memory_mib: int = option(1024, "Memory kept for the host itself.", minimum=0)
    guest_overhead_mib: int = option(
        -1,
        "Memory that the hypervisor takes for each guest beside the guest's own, claimed with it; -1: as measured "
        "(docs/placement.md), 0 with the simulated driver.",
        minimum=-1,
        maximum=65536,
    )
    workers: int = option(4, "Guests worked on at once.", minimum=1, maximum=64)
    boots_at_once: int = option(
        0, "Guests that boot at once; 0: as many as the host's cores carry, which is measured.", minimum=0
    )
    heartbeat_s: float = option(10.0, "Seconds between two heartbeats.", minimum=0.1)
    start_unconfirmed_after_min: float = option(
        0.0,
        "Minutes after a boot of the host from which on its guests are started without an answer of a controller; they "
        "may have been removed with their host, and their addresses be in use elsewhere. 0: never.",
        minimum=0,
    )
    keep_removed_disks_s: int = option(
        604800,
        "Seconds that the disk of a guest is kept that was removed by anything but its owner's delete.",
        minimum=0,
    )
    tcg_cache_mib: int = option(32, "QEMU's translation cache for a guest without KVM.", minimum=1)
    cpu_mode: str = option("auto", "libvirt CPU mode or model; auto: host-model with KVM, else QEMU's default.")
    console_max_bytes: int = option(1048576, "Size at which a serial console log is rotated.", minimum=65536)
    image_cache_max_gib: int = option(100, "Largest size of the image cache.", minimum=1)
    simulated_hosts: int = option(1, "Simulated driver: hosts in this process.", minimum=1, maximum=10000)
    simulated_vcpus: int = option(32, "Simulated driver: cores of each host.", minimum=1)
    simulated_memory_mib: int = option(131072, "Simulated driver: memory of each host.", minimum=1)
    simulated_disk_gib: int = option(2000, "Simulated driver: disk of each host.", minimum=1)
    simulated_macs_file: str = option(
        "", "Simulated driver: file that says which MAC addresses each host may carry, as lines `HOST MAC`."
    )
    simulated_boot_s: float = option(0.0, "Simulated driver: mean time of a boot.", minimum=0)
    simulated_failure_rate: float = option(
        0.0, "Simulated driver: share of operations that fail.", minimum=0, maximum=1
    )


@dataclass(frozen=True)
class Images:
    """Where images are kept and how large they may be."""

    store: str = option("", "Folder of the image store; empty: <state_dir>/images.")
    max_bytes: int = option(64 * 1024**3, "Largest image file.", minimum=1)
    max_virtual_bytes: int = option(2 * 1024**4, "Largest disk that an image may describe.", minimum=1)
    prune_after_s: int = option(
        3600, "Seconds after its image was deregistered until a file that nothing needs is removed.", minimum=120
    )
    url_valid_s: int = option(3600, "Seconds that a signed image URL is valid.", minimum=60)


@dataclass(frozen=True)
class Quota:
    """What a new project may use."""

    instances: int = option(1000, "Instances.", minimum=0)
    vcpus: int = option(4000, "vCPUs.", minimum=0)
    memory_mib: int = option(8192000, "Memory.", minimum=0)


@dataclass(frozen=True)
class Settings:
    """All sections; the name of a field is the name of its section."""

    general: General = field(default_factory=General)
    database: Database = field(default_factory=Database)
    bus: Bus = field(default_factory=Bus)
    api: Api = field(default_factory=Api)
    auth: Auth = field(default_factory=Auth)
    controller: Controller = field(default_factory=Controller)
    scheduler: Scheduler = field(default_factory=Scheduler)
    network: Network = field(default_factory=Network)
    compute: Compute = field(default_factory=Compute)
    images: Images = field(default_factory=Images)
    quota: Quota = field(default_factory=Quota)

    @property
    def state_dir(self) -> Path:
        """The folder below which everything of this cloud lives."""
        return Path(self.general.state_dir)

    @property
    def database_url(self) -> str:
        """The database's URL, the embedded default filled in."""
        return self.database.url or f"sqlite:///{self.state_dir / 'pileus.db'}"

    @property
    def secret_key_file(self) -> Path:
        """The file with the key for secrets at rest."""
        return Path(self.auth.secret_key_file or self.state_dir / "secret.key")

    @property
    def image_store(self) -> Path:
        """The folder of the image files."""
        return Path(self.images.store or self.state_dir / "images")

    @property
    def public_url(self) -> str:
        """The URL under which clients and agents reach the API, without a slash at the end."""
        return (self.api.public_url or f"http://{self.api.listen_host}:{self.api.listen_port}").rstrip("/")

    @property
    def embedded_bus(self) -> bool:
        """Whether all services must share this process, as the bus is its memory."""
        return self.bus.url.startswith("memory:")
