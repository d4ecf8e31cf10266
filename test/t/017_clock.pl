# A clock that jumps ahead and back by an hour: nothing is lost, nobody waits an hour.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $clock = PostgreSQL::Test::Utils::tempdir . '/clock';
my $node;
my $calls = 'SELECT count(*) - count(DISTINCT user_id) FROM app.call';

# Sets the server's clock so many seconds ahead of the machine's.
sub set_clock
{
	my ($seconds) = @_;

	open my $file, '>', "$clock.new" or die "$clock.new: $!";
	printf $file "%+d\n", $seconds;
	close $file;
	rename "$clock.new", $clock;
	return;
}

# Tests that users have got their results.
sub served
{
	my ($first, $last, $name) = @_;

	return polls_to($node, 'postgres',
		"SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series($first\::bigint, $last)))", $name, $last - $first + 1);
}

set_clock(0);
{
	local $ENV{LD_PRELOAD} = join ' ', grep { defined } "$FindBin::RealBin/../module/eros_clock.so", $ENV{LD_PRELOAD};
	local $ENV{EROS_CLOCK} = $clock;
	$node = eros_node('main', "eros.maintenance_interval = 1s\n");
}
create_eros($node, 'postgres');
soon_idle($node, 'postgres', 5);
gated_handler($node, 'postgres');
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(1, 10) u');
served(1, 10, 'ten users are served');

# an hour ahead, in the middle of the work
reload_with($node, 'eros.workers' => 0);
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(11, 20) u');
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'ten jobs are pending', 10);
my $before = value($node, 'postgres', 'SELECT eros.now()');
set_clock(3600);
cmp_ok(value($node, 'postgres', "SELECT extract(epoch FROM eros.now() - '$before')::integer"), '>', 3000, 'the clock jumps an hour ahead');
reload_with($node, 'eros.workers' => 1);
served(11, 20, 'their jobs are done all the same');
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(21, 30) u');
served(21, 30, 'new users are served');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(1::bigint, 10)))}), 10, 'results are there');

# and back, with jobs, users and a snapshot of the future
reload_with($node, 'eros.workers' => 0);
polls_to($node, 'postgres', 'SELECT workers FROM eros.status', 'no worker runs', 0);
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(31, 40) u');
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'ten jobs are pending', 10);
polls_to($node, 'postgres', 'SELECT max(upper) > (SELECT max(last_seen) FROM eros.activity) FROM eros.snapshot', 'the snapshot has them');
$node->safe_psql('postgres', 'SELECT eros_touch(41)');
set_clock(0);
reload_with($node, 'eros.workers' => 1);
served(31, 40, 'after a jump back the pending jobs do not wait for an hour');
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(41, 50) u');
served(41, 50, 'who is touched after it is served, whatever he was before');
polls_to($node, 'postgres', q{SELECT max(upper) < eros.now() + interval '1 minute' FROM eros.snapshot}, 'the snapshot is of now');
is(value($node, 'postgres', q{SELECT count(*) FROM eros.activity WHERE last_seen > eros.now()}), 0, 'nobody was seen in the future');
set_clock(-3600);
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(51, 60) u');
served(51, 60, 'an hour before the beginning likewise');
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'no job is left', 0);
is(value($node, 'postgres', "$calls WHERE user_id <> 41"), 0, 'nothing was done twice');
is(value($node, 'postgres', 'SELECT count(*) FROM eros.status_error'), 0, 'there was no error');
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');
done_testing();
