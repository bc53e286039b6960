#!/bin/sh
# /usr/bin/docker in the containers of these tests: notes how it was called, and leaves out --ulimit, since no limit
# can be raised where they run (that takes CAP_SYS_RESOURCE). Everything else goes to the real client.
printf '%s\n' "$*" >>/var/log/docker-calls
count=$#
skip=''
while [ "$count" -gt 0 ]; do
    argument=$1
    shift
    count=$((count - 1))
    if [ -n "$skip" ]; then
        skip=''
    elif [ "$argument" = --ulimit ]; then
        skip=yes
    else
        set -- "$@" "$argument"
    fi
done
exec /usr/bin/docker.real "$@"
