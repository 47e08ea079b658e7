#!/bin/sh
# What udhcpc calls at each event: its settings are in the environment, checked by udhcpc itself.
PATH=/sbin:/bin
export PATH

# RFC 3442: "destination gateway destination gateway ..."; given those, the router option is ignored.
add_routes() {
    while [ $# -ge 2 ]; do
        case $2 in
        0.0.0.0) ip route replace "$1" dev "$interface" ;;
        *) ip route replace "$1" via "$2" dev "$interface" ;;
        esac
        shift 2
    done
}

case $1 in
deconfig)
    rm -f /run/ip
    ip addr flush dev "$interface"
    ip link set "$interface" up
    ;;
bound | renew)
    ip addr replace "$ip/${mask:-24}" broadcast + dev "$interface"
    [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
    if [ -n "$staticroutes" ]; then
        add_routes $staticroutes
    elif [ -n "$router" ]; then
        ip route replace default via "${router%% *}" dev "$interface"
    fi
    # The metadata service: through the router if there is one, else a neighbour.
    ip route get 169.254.169.254 >/dev/null 2>&1 ||
        ip route replace 169.254.169.254/32 dev "$interface"
    {
        [ -n "$domain" ] && echo "search $domain"
        for server in $dns; do
            echo "nameserver $server"
        done
    } >/run/resolv.conf
    [ "$1" = bound ] && [ -n "$hostname" ] && [ ! -e /run/hostname-set ] && hostname "${hostname%%.*}"
    echo "$ip" >/run/ip.new
    mv /run/ip.new /run/ip
    ;;
esac
