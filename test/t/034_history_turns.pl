# A scheduler that follows another one within a minute does not take the place of that minute's sample.

use strict;
use warnings;

use ErosTest;
use Test::More;

my $node = eros_node('main', "eros.sweep_interval = 100ms\n");
my $returns = q{SELECT sum(returns) FROM eros.history_server WHERE span = '1 min'};

# Moves the time of EROS by a minute, and waits for the sample.
sub next_minute
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $now = value($node, 'postgres', "SELECT eros.advance_clock('1 minute')");
	return polls_to($node, 'postgres', "SELECT count(*) FROM eros.history_ring WHERE span_s = 60 AND sampled_at = date_trunc('minute', timestamptz '$now')", $name, 1);
}

# Ends the scheduler, and waits until the next one has done a round.
sub next_scheduler
{
	my $pid = value($node, 'postgres', q{SELECT scheduler_pid FROM eros.status WHERE pg_terminate_backend(scheduler_pid)});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return polls_to($node, 'postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eros scheduler' AND state = 'idle' AND pid <> $pid",
		'another scheduler has done a round', 1);
}

create_eros($node, 'postgres');
$node->safe_psql('postgres', 'SELECT eros.freeze_clock()');
polls_to($node, 'postgres', 'SELECT count(*) > 0 FROM eros.history_ring', 'the first sample is of the start');
$node->safe_psql('postgres', 'SELECT count(eros_touch(g)) FROM generate_series(1, 10) g');
next_minute('a minute later');
is(value($node, 'postgres', $returns), 10, 'the sample has ten users who came');
for my $n (1 .. 3)
{
	$node->safe_psql('postgres', "SELECT eros_touch(100 + $n)");
	next_scheduler();
	is(value($node, 'postgres', $returns), 10, 'the sample of the minute is as it was');
}
next_minute('the next sample');
is(value($node, 'postgres', $returns), 13, 'has those who came since, and nobody is counted twice');
$node->stop;
done_testing();
