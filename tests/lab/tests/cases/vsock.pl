# One end of a stream over AF_VSOCK, for perl as Debian's base has it.
#
#   perl vsock.pl connect|listen PORT take|give
#
# "take" writes what comes to the standard output, with a rest now and then, and "give" sends what comes on
# descriptor 3. linux/vm_sockets.h has the address: family, reserved, port, context identifier, flags.
use strict;

my ($how, $port, $what) = @ARGV;
my ($AF_VSOCK, $SOCK_STREAM, $ANY, $HOST) = (40, 1, 0xffffffff, 2);
my $address = sub { pack 'S S L L x4', $AF_VSOCK, 0, $port, $_[0] };

socket(my $stream, $AF_VSOCK, $SOCK_STREAM, 0) or die "socket: $!";
if ($how eq 'listen') {
    my $server = $stream;
    bind($server, $address->($ANY)) or die "bind: $!";
    listen($server, 1) or die "listen: $!";
    print STDERR "LISTENING\n";
    undef $stream;
    accept($stream, $server) or die "accept: $!";
} else {
    connect($stream, $address->($HOST)) or die "connect: $!";
}

sub copy {
    my ($from, $to, $rests) = @_;
    my $rounds = 0;
    while (my $count = sysread $from, my $piece, 1 << 16) {
        for (my $done = 0; $done < $count; ) {
            $done += syswrite($to, $piece, $count - $done, $done) // die "write: $!";
        }
        select undef, undef, undef, 0.02 if $rests && ++$rounds % 256 == 0;
    }
}

if ($what eq 'take') {
    copy($stream, \*STDOUT, 1);
} else {
    open my $content, '<&=', 3 or die "descriptor 3: $!";
    copy($content, $stream, 0);
    shutdown $stream, 1;
    # The other end closes when it has all of it.
    sysread $stream, my $end, 1;
}
