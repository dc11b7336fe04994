#!/bin/sh
# In place of systemd's own generators, a process each at every boot: calls those that make units of an image's files, where it
# has such files.

# call GENERATOR DIRECTORY...: as systemd finds it; one that the image has masked stays so
call() {
	for dir in /etc /usr/local/lib /usr/lib /lib; do
		file=$dir/systemd/system-generators/$1
		[ -e "$file" ] || continue
		shift
		[ ! -x "$file" ] || "$file" "$@"
		return
	done
}

if [ -r /etc/fstab ]; then
	while read -r what _ || [ -n "$what" ]; do
		case $what in
		'' | '#'*) ;;
		*)
			call systemd-fstab-generator "$@"
			break
			;;
		esac
	done </etc/fstab
fi

for file in /etc/rc.local /etc/rc.d/rc.local; do
	[ ! -x "$file" ] || call systemd-rc-local-generator "$@"
done

# A script with a unit of its name needs none made.
for file in /etc/init.d/*; do
	[ -f "$file" ] && [ -x "$file" ] || continue
	unit=${file##*/}
	unit=${unit%.sh}.service
	for dir in /etc /usr/local/lib /usr/lib /lib; do
		[ ! -e "$dir/systemd/system/$unit" ] && [ ! -L "$dir/systemd/system/$unit" ] || continue 2
	done
	call systemd-sysv-generator "$@"
	break
done
