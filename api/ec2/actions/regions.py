"""DescribeRegions and DescribeAvailabilityZones."""

from typing import Any
from urllib.parse import urlsplit

from api.ec2.actions.context import Context, Parameters, Result
from api.ec2.actions.listing import fixed
from api.ec2.protocol.filters import compile_filters
from controller.domain.errors import InvalidParameter
from controller.operations.hosts.views import zones

_OPT_IN = "opt-in-not-required"
# No zone has a longer name.
_MAX_NAME = 100


def describe_regions(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeRegions.html"""
    settings = context.cloud.settings
    region = {
        "RegionName": settings.api.region,
        "Endpoint": urlsplit(settings.public_url).netloc,
        "OptInStatus": _OPT_IN,
    }
    for name in params.get("RegionNames", ()):
        if name != settings.api.region:
            reason = f"the only region is {settings.api.region}"
            raise InvalidParameter(parameter="RegionName", value=name[:100], reason=reason)
    matches = compile_filters(
        params.get("Filters", ()),
        {
            "endpoint": lambda r: (r["Endpoint"],),
            "opt-in-status": lambda r: (r["OptInStatus"],),
            "region-name": lambda r: (r["RegionName"],),
        },
    )
    return {"Regions": [region] if matches(region) else []}


def describe_availability_zones(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeAvailabilityZones.html"""
    region = context.cloud.settings.api.region
    names = [name[:_MAX_NAME] for name in (*params.get("ZoneNames", ()), *params.get("ZoneIds", ()))]
    found = [_zone(name, up, region) for name, up in context.cloud.read(lambda tx: zones(tx, names)).items()]
    matches = compile_filters(
        params.get("Filters", ()),
        {
            "group-name": lambda z: (z["GroupName"],),
            "message": lambda z: [m["Message"] for m in z["Messages"]],
            "opt-in-status": fixed(_OPT_IN),
            "region-name": lambda z: (z["RegionName"],),
            "state": lambda z: (z["State"],),
            "zone-id": lambda z: (z["ZoneId"],),
            "zone-name": lambda z: (z["ZoneName"],),
            "zone-type": lambda z: (z["ZoneType"],),
        },
    )
    return {"AvailabilityZones": [z for z in found if matches(z)]}


def _zone(name: str, up: bool, region: str) -> dict[str, Any]:
    return {
        "State": "available" if up else "unavailable",
        "OptInStatus": _OPT_IN,
        "Messages": [] if up else [{"Message": "no host of this zone is up"}],
        "RegionName": region,
        "ZoneName": name,
        "ZoneId": name,
        "GroupName": region,
        "NetworkBorderGroup": region,
        "ZoneType": "availability-zone",
    }
