"""An example of each message, equal to its golden file."""

from controller.domain.guests import Desired, Power
from controller.domain.messages import (
    ConsoleRead,
    DiskState,
    GuestReport,
    GuestsChanged,
    GuestSpec,
    GuestState,
    HostAccepted,
    HostObservation,
    HostReported,
    ImageSpec,
    KeptDisk,
    Message,
    NetworkObservation,
    NicSpec,
    ObserveHost,
    ObserveNetworks,
    OutdatedRequest,
    PrepareNetworks,
    ReadConsole,
    ReconcileGuests,
    ReconcileNetworks,
    RemoveImages,
    RemoveTaps,
    ScheduleReservation,
    SegmentObservation,
)
from controller.domain.states import Event

I1 = "i-0123456789abcdef0"


EXAMPLES: dict[str, Message] = {
    m.KIND: m
    for m in (
        ScheduleReservation("r-0123456789abcdef0", ("r-0123456789abcdef1",)),
        PrepareNetworks(("net-0123456789abcdef0",), (I1,)),
        ReconcileGuests(
            "h1",
            (
                GuestSpec(
                    instance_id=I1,
                    generation=3,
                    desired=Desired.RUNNING,
                    project_id="123456789012",
                    name=I1,
                    vcpus=1,
                    memory_mib=128,
                    disk_gib=1,
                    image=ImageSpec("ami-0123456789abcdef0", "ab" * 32, 1000, "qcow2", "http://api/images/x", 4096),
                    nics=(NicSpec("net-0123456789abcdef0", 100, "52:54:00:01:00:02", "10.0.0.2", 24),),
                    reboot=True,
                    keep_disk=False,
                    may_create=False,
                    wished_us=1767225600000000,
                ),
            ),
            epoch=4,
            expires_at="2026-01-01T00:10:00+00:00",
        ),
        HostAccepted("h1", "b1", 4, "2026-01-01T00:00:00+00:00", 7, (I1,), True),
        RemoveImages("h1", ("ab" * 32,)),
        ReadConsole("h1", I1),
        ConsoleRead(I1, "aGk="),
        GuestsChanged(
            "h1", (GuestReport(I1, 3, Event.SHUT_OFF, "it went off", "shutdown"),), (OutdatedRequest(I1, 2, 3),)
        ),
        HostReported(
            host="h1",
            at="2026-01-01T00:00:00+00:00",
            boot_id="b1",
            hypervisor="kvm",
            vcpus=8,
            memory_mib=16384,
            disk_gib=100,
            zone="z1",
            labels=("ssd",),
            images=("ab" * 32,),
            guests=(GuestState(I1, 3, Power.RUNNING),),
            sequence=7,
            disk_backends=("qcow2",),
            allowed_macs=("52:54:00:01:00:02",),
            probe_error="killed after 10 s",
            epoch=4,
            asks=True,
            pending=(I1,),
            remarks=("1 guest waits",),
            release="0.2.0",
            speaks=2,
            guest_overhead_mib=48,
        ),
        ObserveHost("h1"),
        RemoveTaps("h1", ("plc10dt01234567",)),
        HostObservation(
            "h1",
            (GuestState(I1, 3, Power.RUNNING),),
            (DiskState(I1, 3),),
            ("plc10dt01234567",),
            (I1,),
            "no libvirt",
            (KeptDisk(I1, "2026-01-01T00:00:00+00:00", 196608),),
        ),
        ObserveNetworks(),
        ReconcileNetworks(),
        NetworkObservation(
            True,
            (
                SegmentObservation(
                    network_id="net-0123456789abcdef0",
                    bridge=True,
                    servers=1,
                    lease_max=253,
                    served=("52:54:00:01:00:02,10.0.0.2,ip-10-0-0-2",),
                    given=("52:54:00:01:00:02,10.0.0.2",),
                    wrong_options=("+ dhcp-boot=x",),
                ),
            ),
            ("- drop",),
            "no nft",
        ),
    )
}
