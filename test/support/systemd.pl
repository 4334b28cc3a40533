#!/usr/bin/perl
# Starts a program as systemd does for a socket unit: binds sockets, passes them as descriptors 3, 4, ..,
# and keeps its own copies. Arguments: sockets, `--`, the program. A socket is
#
#   NAME=tcp:ADDRESS[:PORT]  a listener; `v6only:` instead of `tcp:` without IPv4
#   NAME=udp:ADDRESS, NAME=idle:ADDRESS (does not listen), NAME=closed (no descriptor), NAME=unix:PATH
#
# All without a PORT get the same free one; `:0` is another. Prints `port N`, then what the program prints.
# `restart` on the input sends SIGTERM to the program and starts it again when it has ended; `stop`, or
# the end of the input, ends it. LISTEN_PID of the environment replaces the right one.
use strict;
use warnings;
use Socket qw(:all);
use POSIX qw(dup2 :sys_wait_h);

$^F = 1000;    # descriptors survive exec
$| = 1;
my @specs;
push @specs, shift @ARGV while @ARGV and $ARGV[0] ne '--';
shift @ARGV;

sub bound {
    my ($kind, $address, $port) = @_;
    my $v6 = $address =~ /:/;
    my $type = $kind eq 'udp' ? SOCK_DGRAM : SOCK_STREAM;
    socket(my $socket, $v6 ? AF_INET6 : AF_INET, $type, 0) or die "socket: $!";
    setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1);
    setsockopt($socket, IPPROTO_IPV6, IPV6_V6ONLY, $kind eq 'v6only' ? 1 : 0) if $v6;
    my $packed = inet_pton($v6 ? AF_INET6 : AF_INET, $address);
    my $to = $v6 ? pack_sockaddr_in6($port, $packed) : pack_sockaddr_in($port, $packed);
    bind($socket, $to) or return;
    listen($socket, 1024) if $kind eq 'tcp' or $kind eq 'v6only';
    return $socket;
}

sub port_of {
    my $name = getsockname(shift);
    return (sockaddr_family($name) == AF_INET6 ? unpack_sockaddr_in6($name) : unpack_sockaddr_in($name))[0];
}

# Another process may have the port that was free for the first socket.
my (@sockets, $port);
ATTEMPT: for (1 .. 50) {
    (@sockets, $port) = ();
    for (@specs) {
        my ($name, $kind, $rest) = /^(\w*)=(\w+):?(.*)$/ or die "wrong: $_";
        if ($kind eq 'closed') { push @sockets, [$name]; next }
        if ($kind eq 'unix') {
            socket(my $socket, AF_UNIX, SOCK_STREAM, 0);
            bind($socket, pack_sockaddr_un($rest)) or die "bind: $!";
            listen($socket, 1024);
            push @sockets, [$name, $socket];
            next;
        }
        my ($address, $other) = $rest =~ /^\[?(.*?)\]?(?::(0))?$/;
        my $socket = bound($kind, $address, defined $other ? 0 : $port // 0) or next ATTEMPT;
        $port //= port_of($socket) unless defined $other;
        push @sockets, [$name, $socket];
    }
    last;
}
print "port ", $port // 0, "\n";

# High numbers, so that a copy to 3, 4, .. replaces none of them.
my @copies = map { $_->[1] ? dup2(fileno($_->[1]), 500 + fileno($_->[1])) : undef } @sockets;

sub start {
    my $pid = fork();
    return $pid if $pid;
    for my $index (0 .. $#copies) {
        defined $copies[$index] ? dup2($copies[$index], 3 + $index) : POSIX::close(3 + $index);
    }
    POSIX::close($_) for 3 + @copies .. 63;
    POSIX::close($_) for grep { defined } @copies;
    $ENV{LISTEN_FDS} //= scalar @sockets;
    $ENV{LISTEN_PID} //= $$;
    $ENV{LISTEN_FDNAMES} = join(':', map { $_->[0] } @sockets);
    $ENV{GATEWAY_PORT} = $port if $port;
    open(STDIN, '<', '/dev/null');
    exec(@ARGV) or die "exec: $!";
}

my $pid = start();
while (my $line = <STDIN>) {
    last if $line eq "stop\n";
    kill('TERM', $pid);
    waitpid($pid, 0);
    print "ended ", $? >> 8, "\n";
    $pid = start();
}
kill('TERM', $pid);
waitpid($pid, 0);
exit($? >> 8);
