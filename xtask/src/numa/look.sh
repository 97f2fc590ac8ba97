# What a machine of `cargo xtask numa` does: functions, after which one line per part of its report comes. A part begins
# with the line "@ NAME" and ends with "exit CODE".

/bin/busybox --install -s /bin
export PATH=/bin

# report NAME ARGUMENTS...: the JSON that twinfer prints, on one line.
report() {
    echo "@ $1"
    shift
    /programs/twinfer --quiet "$@" > /tmp/report
    code=$?
    tr -d '\n' < /tmp/report
    echo
    echo "exit $code"
}

# A thread's name, the CPU that it ran on last, those that it may run on, and for how many ticks it has run.
thread() {
    read -r name < "$1/comm"
    read -r stat < "$1/stat"
    while read -r key value; do
        case $key in Cpus_allowed_list:) allowed=$value ;; esac
    done < "$1/status"
    # The fields of proc(5) from the third one on: the name before them may hold spaces.
    set -- ${stat##*') '}
    echo "thread $name ${37} $allowed $((${12} + ${13}))"
}

# The threads of process $1 but the first, which only waits for the others, and where its own memory is: a line
# "pages KIND NODE NUMBER". Pages of files are left out: an initramfs is memory, and lies where it was unpacked.
look() {
    for task in "/proc/$1/task"/*; do
        [ "$task" = "/proc/$1/task/$1" ] || thread "$task"
    done
    awk '/anon=/ && !/file=/ {
        kind = / heap/ ? "heap" : / stack/ ? "stack" : "other"
        for (i = 3; i <= NF; i++)
            if ($i ~ /^N[0-9]+=/) {
                split(substr($i, 2), node, "=")
                pages[kind " " node[1]] += node[2]
            }
    }
    END { for (key in pages) print "pages", key, pages[key] }' "/proc/$1/numa_maps"
}

# watch NAME ARGUMENTS...: runs twinfer, and says what it looked like when it was last seen computing.
watch() {
    echo "@ $1"
    shift
    rm -f /tmp/seen
    /programs/twinfer --quiet "$@" > /tmp/report &
    # A process that has ended has no program any more.
    while sleep 1; [ -e /proc/$!/exe ]; do
        # Stopped, it cannot end or go on while it is looked at.
        kill -STOP $!
        look $! > /tmp/look 2> /dev/null
        # Worker 0 is on a CPU of its own while it computes.
        grep -q '^thread twinfer [0-9]* [0-9]* ' /tmp/look && mv /tmp/look /tmp/seen
        kill -CONT $!
    done
    wait $!
    code=$?
    cat /tmp/seen
    grep -E '"(backend|sha256)"' /tmp/report
    echo "exit $code"
}
