#!/bin/sh
# The guest's first process: sets the system up, then serves the monitor over serial lines.
#
#   ttyS0  the console: kernel messages, and the shell where there is one
#   ttyS1  control: one request a line, one answer a line
#   ttyS2  standard output of scripts       ttyS3  standard error of scripts
#
# Requests:  PART <nonce> <base64>   more of the script <nonce>            -> OK <nonce>
#            RUN <nonce>             run it                     -> EXIT <nonce> <status>
#            SIZE <nonce> <rows> <columns>   the console's window size     -> OK <nonce>
#            HALT                    power off
# The output of a script ends with \0<nonce>\0 on ttyS2 and on ttyS3.
#
# A fork is dear on a translated processor, so this uses builtins wherever there is one.
# Standard input, output and error are the console.

export PATH=/usr/local/bin:/usr/bin:/bin:/sbin HOME=/root TERM=linux
spool=/run/ringfence

# Job control, so that what runs in the background keeps SIGINT and SIGQUIT. It wants a terminal of
# one's own: the control line, where no key is a signal.
served=$1
if [ -n "$served" ]; then
	exec <&6 6<&-
elif stty -echo -isig -icrnl -ixon -opost </dev/ttyS1 2>/dev/null; then
	exec setsid -c "$0" served 6<&0 3<>/dev/ttyS1 <&3
fi

mount -a
[ -n "$served" ] && set -m # wants /dev/tty
echo ringfence >/proc/sys/kernel/hostname
read -r cmdline </proc/cmdline

# Drivers of the machine's devices, each behind what it depends on.
drivers() {
	while read -r module; do
		insmod "/lib/modules/ringfence/$module.ko"
	done </lib/modules/ringfence/order
} 2>/dev/null
drivers

# busybox's poweroff, halt and reboot tell the first process by signal.
trap 'busybox poweroff -f' USR2
trap 'busybox halt -f' USR1
trap 'busybox reboot -f' TERM

alive() {
	[ -n "$1" ] && read -r _ _ state _ <"/proc/$1/stat" && [ "$state" != Z ]
} 2>/dev/null

# Scripts write to pipes, not to terminals, so that they act as under any other caller (`ls` prints
# one name a line). The relays carry the bytes on to the serial lines.
relay() {
	stty raw -echo <"$2"
	exec cat <"$spool/$1" >"$2"
}

relays() {
	alive "$out" || { relay stdout /dev/ttyS2 3>&- 4>&- 5>&- & out=$!; }
	alive "$err" || { relay stderr /dev/ttyS3 3>&- 4>&- 5>&- & err=$!; }
}

answer() {
	printf '\000%s\000' "$1" >&4
	printf '\000%s\000' "$1" >&5
	echo "EXIT $1 $2" >&3
	rm -f "$spool/$1.sh" "$spool/$1.parts"
}

run() {
	cd /root
	base64 -d "$spool/$1.parts" >"$spool/$1.sh"
	# In parentheses, so that what this shell says of a script's end is not the script's output.
	(exec setsid sh "$spool/$1.sh" </dev/null >&4 2>&5 3>&- 4>&- 5>&-)
	answer "$1" $?
}

# A script can kill all but the first process (kill -9 -1): then this answers for it. The signal
# can come again meanwhile; `busy` keeps it from entering twice.
ended() {
	pending=1
	[ -n "$busy" ] && return
	busy=1
	while [ -n "$pending" ]; do
		pending=
		jobs >/dev/null # collects the processes that ended
		relays
		set -- $running
		running=
		while [ $# -gt 1 ]; do
			if alive "$2"; then
				running="$running $1 $2"
			elif [ -e "$spool/$1.parts" ]; then
				answer "$1" 137
			fi
			shift 2
		done
	done
	busy=
}

console() {
	cd /root
	echo "Linux $(uname -r) on Ringfence. Leave with 'poweroff' or Ctrl-D."
	setsid -c sh
	busybox poweroff -f
}

# Line by line: the signal of a child's end must find the reader between two lines, never within.
# Without a control line there is nobody to serve: any other machine gets the shell.
[ -n "$served" ] || console
exec 4<>$spool/stdout 5<>$spool/stderr
echo 'RINGFENCE-AGENT 1 READY' >&3

# Requests wait in the line's buffer until this is done.
case " $cmdline " in
*' ringfence.shell=1 '*) console </dev/ttyS0 >/dev/ttyS0 2>&1 3>&- 4>&- 5>&- & ;;
esac
relays
ip link set lo up
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts

while :; do
	# A signal ends the read, not the service.
	while read -r verb nonce rest; do
		case $nonce in
		*[!0-9A-Fa-f]*) continue ;;
		esac
		case $verb in
		PART)
			echo "$rest" >>"$spool/$nonce.parts"
			echo "OK $nonce" >&3
			;;
		RUN)
			busy=1
			trap ended CHLD
			run "$nonce" 2>/dev/null &
			running="$running $nonce $!"
			busy=
			[ -n "$pending" ] && ended
			;;
		SIZE)
			stty rows "${rest% *}" cols "${rest#* }" </dev/ttyS0
			echo "OK $nonce" >&3
			;;
		HALT) busybox poweroff -f ;;
		esac
	done <&3
done
