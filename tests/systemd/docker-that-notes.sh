#!/bin/sh
# /usr/bin/docker in the containers of these tests. It notes how it was called, and hands the call to the real client.
#
# Where /etc/limits-cannot-be-raised is there (that takes CAP_SYS_RESOURCE, which these tests mostly do not have), it
# leaves out each --ulimit, and tells the stand-in for CrateDB of them, so that the stand-in judges what docker was asked
# for. The same goes for vm.max_map_count, as sysctl.d has it.
printf '%s\n' "$*" >>/var/log/docker-calls
if [ "$1" != run ] || [ ! -e /etc/limits-cannot-be-raised ]; then
    exec /usr/bin/docker.real "$@"
fi
shift
count=$#
skip=''
asked=''
while [ "$count" -gt 0 ]; do
    argument=$1
    shift
    count=$((count - 1))
    if [ -n "$skip" ]; then
        skip=''
        asked="$asked$argument "
    elif [ "$argument" = --ulimit ]; then
        skip=yes
    else
        set -- "$@" "$argument"
    fi
done
maps=$(cat /usr/local/lib/sysctl.d/*.conf 2>/dev/null | sed -n 's/^vm.max_map_count *= *//p')
exec /usr/bin/docker.real run --env "STAND_IN_ULIMITS=$asked" --env "STAND_IN_MAX_MAP_COUNT=${maps:-65530}" "$@"
