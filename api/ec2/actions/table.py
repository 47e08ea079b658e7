"""Every action that this cloud offers, by its name."""

from collections.abc import Mapping
from types import MappingProxyType

from api.ec2.actions import (
    account,
    console,
    images,
    instance_actions,
    instance_attributes,
    instance_types,
    instances,
    key_pairs,
    launch,
    networks,
    placement_groups,
    regions,
    tags,
)
from api.ec2.actions.context import Handler

ACTIONS: Mapping[str, Handler] = MappingProxyType(
    {
        "CreateKeyPair": key_pairs.create_key_pair,
        "CreatePlacementGroup": placement_groups.create_placement_group,
        "CreateTags": tags.create_tags,
        "DeleteKeyPair": key_pairs.delete_key_pair,
        "DeletePlacementGroup": placement_groups.delete_placement_group,
        "DeleteTags": tags.delete_tags,
        "DescribeAccountAttributes": account.describe_account_attributes,
        "DescribeAddresses": account.describe_addresses,
        "DescribeAvailabilityZones": regions.describe_availability_zones,
        "DescribeImages": images.describe_images,
        "DescribeInstanceAttribute": instance_attributes.describe_instance_attribute,
        "DescribeInstanceStatus": instances.describe_instance_status,
        "DescribeInstanceTypes": instance_types.describe_instance_types,
        "DescribeInstances": instances.describe_instances,
        "DescribeKeyPairs": key_pairs.describe_key_pairs,
        "DescribePlacementGroups": placement_groups.describe_placement_groups,
        "DescribeRegions": regions.describe_regions,
        "DescribeSubnets": networks.describe_subnets,
        "DescribeTags": tags.describe_tags,
        "DescribeVpcs": networks.describe_vpcs,
        "GetConsoleOutput": console.get_console_output,
        "ImportKeyPair": key_pairs.import_key_pair,
        "ModifyInstanceAttribute": instance_attributes.modify_instance_attribute,
        "RebootInstances": instance_actions.reboot_instances,
        "RunInstances": launch.run_instances,
        "StartInstances": instance_actions.start_instances,
        "StopInstances": instance_actions.stop_instances,
        "TerminateInstances": instance_actions.terminate_instances,
    }
)
