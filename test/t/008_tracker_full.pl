# Many more active users than the shared memory has room for: slower, never wrong.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $users = 20_000;
my $node = eros_node('main', "eros.tracker_memory = 256kB\n");

create_eros($node, 'postgres');
$node->safe_psql('postgres', 'UPDATE eros.phase SET cpu_percent = 95, batch_size = 1000');
gated_handler($node, 'postgres');
my $capacity = value($node, 'postgres', 'SELECT tracker_capacity FROM eros.status');
cmp_ok($capacity, '<', $users / 2, "the shared memory has room for $capacity users");

# Touches the users of a range, a thousand in a transaction.
sub touch_all
{
	my ($first, $last) = @_;

	$node->safe_psql(
		'postgres', join "\n",
		map { sprintf 'SELECT count(eros_touch(u)) FROM generate_series(%d, %d) u;', $_, $_ + 999 }
		  map { $first + 1000 * $_ } 0 .. ($last - $first + 1) / 1000 - 1);
	return;
}

# Tests that all users are in a phase, or come to be, after the time has been moved.
sub all_in_phase
{
	my ($phase, $transitions, $name) = @_;

	polls_to($node, 'postgres', "SELECT users FROM eros.status_phase WHERE phase = $phase", "all users are in phase $phase $name", $users);
	is(value($node, 'postgres', "SELECT transitions FROM eros.status_phase WHERE phase = $phase"),
		$transitions, 'each has crossed into it once');
	is(value($node, 'postgres', 'SELECT idle_users FROM eros.status'), $users, 'no user is counted twice');
	is(value($node, 'postgres', "SELECT count(*) FROM eros.activity WHERE phase = $phase"), $users, 'and each has his row');
	polls_to($node, 'postgres', 'SELECT active_users FROM eros.status', 'nobody is active', 0);
	return;
}

# Everybody active, wherever he is kept.
my $active = 'SELECT active_users + (SELECT count(*) FROM eros.activity WHERE phase = 0) FROM eros.status';

touch_all(1, $users);
polls_to($node, 'postgres', $active, "all $users users are active", $users);
cmp_ok(value($node, 'postgres', 'SELECT tracker_users FROM eros.status'), '<=', $capacity, 'the memory holds what it can');
cmp_ok(value($node, 'postgres', 'SELECT touches_spilled + users_spilled FROM eros.status'),
	'>=', $users - $capacity, 'touches and users that went to the table are counted');
cmp_ok(value($node, 'postgres', 'SELECT touches_spilled FROM eros.status'), '>', 0, 'touches among them');
is(value($node, 'postgres', 'SELECT touches_lost FROM eros.status'), 0, 'no touch is lost');
cmp_ok(value($node, 'postgres', 'SELECT tracker_bytes FROM eros.status'),
	'<=', value($node, 'postgres', 'SELECT tracker_limit_bytes FROM eros.status'), 'the memory stays within its limit');
is(value($node, 'postgres', 'SELECT count(*) FROM eros.job'), 0, 'nobody who is active has a job');
is(value($node, 'postgres', 'SELECT idle_users FROM eros.status'), 0, 'nor counts as idle');
like(value($node, 'postgres', 'SELECT status FROM eros.status'), qr/raise eros\.tracker_memory/, 'the status advises more memory');

# who stays keeps active, be he in memory or in the table
$node->safe_psql('postgres', q{SELECT eros.advance_clock('6 minutes')});
$node->safe_psql('postgres', 'SELECT count(eros_touch(u)) FROM generate_series(1, 100) u');
$node->safe_psql('postgres', "SELECT count(eros_touch(u)) FROM generate_series($users - 99, $users) u");
$node->safe_psql('postgres', q{SELECT eros.advance_clock('6 minutes')});
polls_to($node, 'postgres', 'SELECT users FROM eros.status_phase WHERE phase = 1', 'all but those who stayed are idle', $users - 200);
is( value($node, 'postgres', q{
		SELECT count(*) FROM eros.activity WHERE phase > 0
		AND (user_id BETWEEN eros.user_key(1) AND eros.user_key(100)
			OR user_id BETWEEN eros.user_key(} . ($users - 99) . qq{) AND eros.user_key($users))}),
	0, 'and none of those');
$node->safe_psql('postgres', q{SELECT eros.advance_clock('5 minutes')});
all_in_phase(1, $users, 'in the end');
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'all jobs are done', 0);
is( value($node, 'postgres', "SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(1::bigint, $users)))"),
	$users, 'each user has his result');
is(value($node, 'postgres', 'SELECT count(*) - count(DISTINCT user_id) FROM app.call'), 0, 'computed once');
$node->safe_psql('postgres', q{SELECT eros.advance_clock('30 minutes')});
all_in_phase(2, $users, 'later');
$node->safe_psql('postgres', q{SELECT eros.advance_clock('30 minutes')});
all_in_phase(3, $users, 'later still');

# they all come back; go for too short a time to be served, and come back; go again
touch_all(1, $users);
polls_to($node, 'postgres', $active, 'all users are active again', $users);
polls_to($node, 'postgres', 'SELECT idle_users FROM eros.status', 'nobody counts as idle', 0);
reload_with($node, 'eros.workers' => 0);
polls_to($node, 'postgres', 'SELECT workers FROM eros.status', 'no worker runs', 0);
$node->safe_psql('postgres', q{SELECT eros.advance_clock('11 minutes')});
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'all have a job', $users);
touch_all(1, $users);
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'all who return lose it', 0);
polls_to($node, 'postgres', 'SELECT jobs_pending FROM eros.status', 'no pending job is counted', 0);
polls_to($node, 'postgres', $active, 'all users are active again', $users);
reload_with($node, 'eros.workers' => 1);
$node->safe_psql('postgres', q{SELECT eros.advance_clock('61 minutes')});
all_in_phase(3, 2 * $users, 'again');
polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', 'all jobs are done again', 0);
is(value($node, 'postgres', 'SELECT count(*) FROM app.call'), 2 * $users, 'once for each absence that was long enough');
is(value($node, 'postgres', 'SELECT jobs_pending FROM eros.status'), 0, 'and counted well');

# a touch that goes to the table takes part in its transaction; nobody makes room meanwhile
reload_with($node, 'eros.enabled' => 'off');
touch_all(100_001, 110_000);
my $lost = 'SELECT touches_lost FROM eros.status';
is(value($node, 'postgres', $lost), 0, 'no touch is lost');

# read-only, with the memory full
my ($status, $stdout, $stderr) = $node->psql('postgres',
	'BEGIN READ ONLY; SELECT count(eros_touch(u)) FROM generate_series(200001, 201000) u; COMMIT');
is($status, 0, 'read-only touches succeed with the memory full') or diag($stderr);
cmp_ok(value($node, 'postgres', $lost), '>', 500, 'those that found no room are counted');
reload_with($node, 'eros.enabled' => 'on');
polls_to($node, 'postgres', q{SELECT status LIKE '%touches were lost in the last hour where nothing can be written: raise eros.tracker_memory' FROM eros.status},
	'the status tells, and what to do');

# the scheduler has made room
polls_to($node, 'postgres', "SELECT tracker_users < 0.85 * $capacity FROM eros.status", 'room is made');
my $before = value($node, 'postgres', $lost);
$node->safe_psql('postgres', 'BEGIN READ ONLY; SELECT count(eros_touch(u)) FROM generate_series(300001, 300030) u; COMMIT');
is(value($node, 'postgres', $lost), $before, 'then a few read-only touches are not lost');
$node->safe_psql('postgres', q{SELECT eros.advance_clock('11 minutes')});
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(300001::bigint, 300030)))},
	'and their users get their results', 30);
polls_to($node, 'postgres', q{SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(100001::bigint, 110000)))},
	'as does everybody else', 10_000);

$node->stop;
done_testing();
