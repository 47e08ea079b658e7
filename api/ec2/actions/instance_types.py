"""DescribeInstanceTypes."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from api.ec2.actions.context import Context, Parameters, Result
from api.ec2.actions.instance_shape import architecture
from api.ec2.actions.listing import fixed, page_of
from api.ec2.protocol.filters import ValuesOf, compile_filters
from controller.operations.cloud import Transaction
from controller.operations.hosts.views import architectures
from controller.operations.instances.instance_types import InstanceTypeView, list_types

_MAX_PAGE = 100
_DEFAULT_ARCHITECTURE = "x86_64"


def describe_instance_types(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypes.html"""
    names = params.get("InstanceTypes", ())

    def read(tx: Transaction) -> tuple[Sequence[InstanceTypeView], list[str]]:
        return list_types(tx, names), architectures(tx)

    types, found = context.cloud.read(read)
    supported = [architecture(a) for a in found] or [_DEFAULT_ARCHITECTURE]
    known = {**_FILTERS, "processor-info.supported-architecture": lambda _: supported}
    matches = compile_filters(params.get("Filters", ()), known)
    chosen = (t for t in types if matches(t))
    items, token = page_of(context, params, chosen, _order, ids="InstanceTypes", maximum=_MAX_PAGE)
    return {"InstanceTypes": [_shape(t, supported) for t in items], "NextToken": token}


def _order(instance_type: InstanceTypeView) -> str:
    """The smallest first."""
    return f"{instance_type.memory_mib:012}/{instance_type.vcpus:06}/{instance_type.name}"


def _shape(instance_type: InstanceTypeView, supported: Sequence[str]) -> dict[str, Any]:
    return {
        "InstanceType": instance_type.name,
        "CurrentGeneration": True,
        "FreeTierEligible": False,
        "SupportedUsageClasses": ["on-demand"],
        "SupportedRootDeviceTypes": ["ebs"],
        "SupportedVirtualizationTypes": ["hvm"],
        "BareMetal": False,
        "Hypervisor": "kvm",
        "ProcessorInfo": {"SupportedArchitectures": list(supported)},
        "VCpuInfo": {
            "DefaultVCpus": instance_type.vcpus,
            "DefaultCores": instance_type.vcpus,
            "DefaultThreadsPerCore": 1,
            "ValidCores": [instance_type.vcpus],
            "ValidThreadsPerCore": [1],
        },
        "MemoryInfo": {"SizeInMiB": instance_type.memory_mib},
        "InstanceStorageSupported": True,
        "InstanceStorageInfo": {
            "TotalSizeInGB": instance_type.disk_gib,
            "Disks": [{"SizeInGB": instance_type.disk_gib, "Count": 1, "Type": "hdd"}],
            "NvmeSupport": "unsupported",
            "EncryptionSupport": "unsupported",
        },
        "EbsInfo": {"EbsOptimizedSupport": "unsupported", "EncryptionSupport": "unsupported"},
        "NetworkInfo": {
            "NetworkPerformance": "that of the host",
            "MaximumNetworkInterfaces": 1,
            "Ipv4AddressesPerInterface": 1,
            "Ipv6AddressesPerInterface": 0,
            "Ipv6Supported": False,
            "EnaSupport": "unsupported",
        },
        "PlacementGroupInfo": {"SupportedStrategies": ["cluster", "spread"]},
        "HibernationSupported": False,
        "BurstablePerformanceSupported": False,
        "DedicatedHostsSupported": False,
        "AutoRecoverySupported": False,
        "SupportedBootModes": ["legacy-bios"],
    }


_FILTERS: Mapping[str, ValuesOf[InstanceTypeView]] = MappingProxyType(
    {
        "auto-recovery-supported": fixed("false"),
        "bare-metal": fixed("false"),
        "burstable-performance-supported": fixed("false"),
        "current-generation": fixed("true"),
        "dedicated-hosts-supported": fixed("false"),
        "free-tier-eligible": fixed("false"),
        "hibernation-supported": fixed("false"),
        "hypervisor": fixed("kvm"),
        "instance-storage-info.total-size-in-gb": lambda t: (str(t.disk_gib),),
        "instance-storage-supported": fixed("true"),
        "instance-type": lambda t: (t.name,),
        "memory-info.size-in-mib": lambda t: (str(t.memory_mib),),
        "supported-boot-mode": fixed("legacy-bios"),
        "supported-root-device-type": fixed("ebs"),
        "supported-usage-class": fixed("on-demand"),
        "supported-virtualization-type": fixed("hvm"),
        "vcpu-info.default-cores": lambda t: (str(t.vcpus),),
        "vcpu-info.default-threads-per-core": fixed("1"),
        "vcpu-info.default-vcpus": lambda t: (str(t.vcpus),),
    }
)
