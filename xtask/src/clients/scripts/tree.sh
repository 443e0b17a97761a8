# A tree that coreutils make is copied in and out, and compared by rsync and by listings of find.
. "$SCRIPTS/common.sh"

make_tree() {
    mkdir tree
    cd tree
    local deep=. level
    for ((level = 1; level <= 20; level++)); do
        deep+=/level-$level
        mkdir "$deep"
        seq 1 $((level * 50)) >"$deep/numbers"
        (cd "$deep" && seq 1 500 | split --lines=2 --suffix-length=3 - 'part ')
        ln "$deep/part aaa" "$deep/hard link"
        ln -s "part aab" "$deep/link"
        chmod 755 "$deep"/part\ aa[a-f]
        chmod 600 "$deep"/part\ ab?
        chmod 444 "$deep"/part\ ac?
        chown 1234:5678 "$deep"/part\ ad?
        touch -d "1971-02-03 04:05:$level.123456789" "$deep"/part\ ae?
        touch -d "2001-09-09 01:46:40.00000000$((level % 10))" "$deep"/part\ af?
        touch -d "2055-05-05 05:05:05.5" "$deep"/part\ ag?
    done
    mkdir names empty
    local name
    for name in 'two words' ' leading' 'trailing ' $'two\nlines' $'tab\there' $'escape\e[31m' $'bell\a' '-dash' '--' \
        'star*' '?' '[a]' 'back\slash' "single'quote" 'double"quote' '$HOME' '`id`' '~' '#' '...' 'é' '日本' \
        $'latin1-\xe9' $'\xff\xfe\x80' "$(printf 'n%.0s' {1..255})"; do
        printf '%s' "$name" >"names/$name"
        ln -s -- "$name" "names/l${name:0:200}"
    done
    ln -s /no/such/file dangling
    ln -s loop-b loop-a
    ln -s loop-a loop-b
    ln -s level-1/level-2 link-to-directory
    touch -h -d '1999-12-31 23:59:59.987654321' dangling link-to-directory
    : >nothing
    mkfifo pipe
    # 256 MiB that occupy 8 KiB.
    printf start >sparse
    printf middle | dd of=sparse bs=1 seek=100000000 conv=notrunc status=none
    truncate -s 256M sparse
    setfattr -n user.note -v 'a value' nothing level-1
    setfacl -m u:1234:rw,g:5678:r "level-1/part aba"
    setfacl -d -m u:1234:rwx level-1/level-2
    chmod 1777 empty
    chmod 700 level-1/level-2/level-3
    find . -depth -type d -exec touch -d '2010-10-10 10:10:10.101010101' {} +
    cd ..
}

# Path, type, mode, owner, mtime; of files also links, size and target. Sizes of directories differ between systems.
list='export LC_ALL=C
find . \( -type d -printf "%P|%y|%m|%U:%G|%T@\\0" \) -o -printf "%P|%y|%m|%U:%G|%T@|%n|%s|%l\\0" | sort -z'

same_listing() {
    cmp "$2" "$3" || fail "$1: $(diff --text <(tr '\0' '\n' <"$2") <(tr '\0' '\n' <"$3") | head -n 20)"
}

# Fails if rsync would transfer, change or delete anything.
same_tree() {
    local differences
    differences=$(rsync --dry-run --checksum -aHAX --numeric-ids --delete --itemize-changes \
        -e 'ssh -F config' "$2" "$3")
    equal "$1: rsync" "" "$differences"
}

{ set +x; } 2>/dev/null
make_tree
set -x
write_ssh_config
files=$(find tree ! -type d -printf . | wc -c)
((files >= 5000)) || fail "only $files files"

start=$EPOCHREALTIME
minionsctl cp -a tree "$VM:/var/tmp/tree"
took_in=$(since "$start")
start=$EPOCHREALTIME
minionsctl cp -a "$VM:/var/tmp/tree" back
took_out=$(since "$start")

(cd tree && sh -ec "$list") >tree.list
(cd back && sh -ec "$list") >back.list
guest "cd /var/tmp/tree; $list" >guest.list
same_listing "in the guest" tree.list guest.list
same_listing "back on the host" tree.list back.list
same_tree "in the guest" tree/ "$VM.minions:/var/tmp/tree/"
same_tree "back on the host" tree/ back/
for blocks in "$(stat -c %b tree/sparse)" "$(guest 'stat -c %b /var/tmp/tree/sparse')" "$(stat -c %b back/sparse)"; do
    # 512-byte blocks. A file system allocates at most a few blocks more for the two parts.
    ((blocks <= 256)) || fail "the sparse file occupies $blocks blocks"
done
guest 'rm -r /var/tmp/tree'
figures "$files files in within $took_in s, out within $took_out s; rsync and find: equal;"
