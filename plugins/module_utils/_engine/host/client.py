# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection pgops.backup: no promise of a stable interface to anyone else.
"""The client `pgops-wal`, which PostgreSQL calls for each WAL file: it asks the process that stays, or becomes the program.

It is Perl without a module, which every Debian has (perl-base) and which starts in a tenth of Python's time. wal/stay.py says what
the two tell each other.
"""

from __future__ import annotations

from pathlib import Path

from ..wal.calls import CALLER, PROTOCOL

_TEXT = r"""#!%(perl)s
# Written by Ansible (pgops.backup.pgops_program): changes made here are lost.
# pgops wal archive|fetch, by the process that stays while calls follow each other; without one, this becomes pgops.
my ($program, $current) = (%(program)s, %(current)s);
# It says each second that it lives; silence for so long, or work for so long, is its end.
my ($silence, $longest) = (%(silence)d, 600);

sub becomes {
    $ENV{%(caller)s} = 1;
    $SIG{PIPE} = "DEFAULT";
    exec { $program } $program, @ARGV;
    print STDERR "pgops-wal: $program cannot be run: $!. Lay the program down again: pgops.backup.pgops_program.\n";
    exit(($ARGV[1] // "") eq "fetch" && !-e "standby.signal" ? 204 : 4);
}

# Perl's own end would be a code that PostgreSQL takes for the end of the WAL.
$SIG{__DIE__} = \&becomes;
my $config;
for my $at (2 .. $#ARGV) {
    $config = $ARGV[$at + 1] if $ARGV[$at] =~ m{\A(?:-c|--config)\z};
    $config = $1 if $ARGV[$at] =~ m{\A--config=(.*)\z}s;
}
becomes() unless ($ARGV[0] // "") eq "wal" && ($ARGV[1] // "") =~ m{\A(?:archive|fetch)\z} && ($config // "") =~ m{\A/};
becomes() if $config =~ m{//|/\.\.?(?:/|\z)|/\z};
my $here = readlink "/proc/self/cwd";
my $caches = $ENV{XDG_CACHE_HOME} // "";
$caches = ((getpwuid $>)[7] // "") . "/.cache" unless $caches =~ m{\A/};
becomes() unless defined $here && $caches =~ m{\A/};

my $sum = 0xffffffff;
for my $byte (unpack "C*", $config) {
    $sum ^= $byte;
    $sum = $sum & 1 ? ($sum >> 1) ^ 0xedb88320 : $sum >> 1 for 1 .. 8;
}
my $path = sprintf "%%s/pgops/wal-%%08x.sock", $caches, $sum ^ 0xffffffff;
becomes() unless length $path < 108 && -S $path;

# AF_UNIX, SOCK_STREAM, SOL_SOCKET and SO_PEERCRED by their numbers: the module Socket costs more than all else.
my $to;
socket($to, 1, 1, 0) && connect($to, pack "S a108", 1, $path) or becomes();
my ($pid, $uid) = unpack "lL", getsockopt($to, 1, 17) // becomes();
becomes() unless defined $uid && ($uid == $> || $uid == 0);
# One in another container sees other files under the same names.
becomes() unless $pid > 0 && (readlink("/proc/$pid/ns/mnt") // "") eq (readlink("/proc/self/ns/mnt") // "-");

my $version = readlink $current;
$version = $current unless defined $version;
$version =~ s{.*/}{}s;
my $question = join "\0", "%(protocol)s", $version, $here, @ARGV[1 .. $#ARGV];
$SIG{PIPE} = "IGNORE";
my $sent = pack("N", length $question) . $question;
my $wrote = syswrite $to, $sent;
becomes() unless defined $wrote && $wrote == length $sent;

my ($heard, $until) = ("", time + $longest);
while (1) {
    my $bits = "";
    vec($bits, fileno $to, 1) = 1;
    my $ready = select $bits, undef, undef, $silence;
    if ($ready == 0 || time > $until) {
        print STDERR "pgops-wal: process $pid (pgops wal stay) does not answer and was ended; $program does the work.\n";
        kill 9, $pid;
        becomes();
    }
    becomes() unless (sysread $to, $heard, 65536, length $heard) // 0;
    $heard =~ s{\A\.+}{};
    last if length $heard >= 5 && length $heard >= 5 + unpack "x N", $heard;
}
my ($code, $made, $target, $said) = split /\0/, substr($heard, 5), 4;
becomes() unless ($code // "") =~ m{\A\d+\z} && defined $said;
# We do it, as PostgreSQL ends us with itself: later it may want another file under that name.
!length $made || rename $made, $target or becomes();
print STDERR $said;
exit $code;
"""


def client(*, perl: str, program: str, current: str, silence: int = 30) -> str:
    """Return the client for a program at the path `program`, whose versions the link `current` tells; `silence` in seconds."""
    return _TEXT % {
        "perl": perl,
        "program": _quoted(program),
        "current": _quoted(current),
        "silence": silence,
        "caller": CALLER,
        "protocol": PROTOCOL,
    }


def client_of(program: Path) -> Path:
    """Return where the client of the program at this path lies, if there is one: beside it."""
    return program.with_name("%s-wal" % program.name)


def _quoted(text: str) -> str:
    """Return `text` as a word of Perl."""
    return "'%s'" % text.replace("\\", "\\\\").replace("'", "\\'")


__all__ = ("client", "client_of")
