# Waits until the test process is gone (its end of the pipe closes, however it ended), then ends
# the servers that were started from its folder ($1) and removes the folder.
base=$1
cat >/dev/null

ours() {
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        [ "$pid" = "$$" ] && continue
        if grep -qsF -- "$base" "$dir/cmdline"; then
            echo "$pid"
        elif grep -qs '^postgres: ' "$dir/cmdline"; then
            # A frozen backend does not notice that its server is gone.
            case $(readlink "$dir/cwd") in "$base"/*) echo "$pid" ;; esac
        fi
    done
}

# PostgreSQL gives its shared memory back on SIGQUIT, not on SIGKILL.
for pid in $(ours); do
    if grep -qs '^[^ ]*/postgres' "/proc/$pid/cmdline"; then
        kill -QUIT "$pid" 2>/dev/null
    else
        kill -KILL "$pid" 2>/dev/null
    fi
done
for _ in 1 2 3 4 5 6 7 8 9 10; do
    left=$(ours)
    [ -z "$left" ] && break
    sleep 0.1
done
for pid in $left; do
    kill -KILL "$pid" 2>/dev/null
done
rm -rf -- "$base"
