# Restarts and crashes: what was there is there after it, nothing is done twice, and processes that
# died come back.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $users = 0;
my $node = eros_node('main', "restart_after_crash = on\n");

# Touches new users and waits until their jobs are pending, safe on disk; none can be finished yet.
sub new_jobs
{
	my ($count) = @_;

	open_gate($node, 'postgres', 0);
	$node->safe_psql('postgres',
		sprintf 'SELECT eros_touch(u) FROM generate_series(%d, %d) u', $users + 1, $users + $count);
	$users += $count;
	polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', "$count new jobs are pending", $count);
	on_disk($node, 'postgres');
	return;
}

# Tests that every user so far comes to have his result, after one call each.
sub all_done_once
{
	my ($after) = @_;

	open_gate($node, 'postgres', 1);
	polls_to($node, 'postgres', 'SELECT count(*) FROM eros.job', "no job is left $after", 0);
	is( value(
			$node, 'postgres',
			"SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(1::bigint, $users)))"
		),
		$users,
		"all $users users have their result $after");
	is( value($node, 'postgres', 'SELECT count(*) - count(DISTINCT user_id) FROM app.call'),
		0, "nobody's result was stored twice $after");
	return;
}

# Ends one of EROS's processes by a signal; returns its pid.
sub end_process
{
	my ($signal, $pid_sql) = @_;
	my $pid = value($node, 'postgres', $pid_sql);

	die "no process: $pid_sql" unless $pid =~ /^\d+$/;
	is(PostgreSQL::Test::Utils::system_log('pg_ctl', 'kill', $signal, $pid), 0, "$signal is sent");
	return $pid;
}

create_eros($node, 'postgres');
soon_idle($node, 'postgres', 2);
gated_handler($node, 'postgres', 0.02);

# a clean restart
new_jobs(20);
all_done_once('at first');
reload_with($node, 'eros.workers' => 0);
new_jobs(30);
is(value($node, 'postgres', 'SELECT idle_users FROM eros.status'), 50, '50 users are idle');
$node->safe_psql('postgres', 'VACUUM ANALYZE eros.cache');
$node->restart;
polls_to($node, 'postgres', running(), 'launcher and scheduler run after a restart');
polls_to($node, 'postgres', 'SELECT idle_users FROM eros.status', 'idle users survive a clean restart', 50);
is(value($node, 'postgres', 'SELECT sum(users) FROM eros.status_phase WHERE phase = 1'),
	50, 'and are in their phase');
is(value($node, 'postgres', 'SELECT count(*) FROM eros.job'), 30, 'pending jobs survive it');
is(value($node, 'postgres', 'SELECT jobs_pending FROM eros.status'), 30, 'and are counted');
is( value($node, 'postgres', "SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(1::bigint, 50)))"),
	20,
	'results survive it');
cmp_ok(value($node, 'postgres', 'SELECT cache_bytes FROM eros.status'), '>', 20 * 100, 'and are counted');
is( value($node, 'postgres', 'SELECT sum(cache_bytes) FROM eros.sample_handlers(NULL)'),
	value($node, 'postgres', 'SELECT cache_bytes FROM eros.status'),
	'as those of the only handler');
reload_with($node, 'eros.workers' => 1);
all_done_once('after a clean restart');
is(value($node, 'postgres', 'SELECT status FROM eros.status'), 'ok', 'all is well');

# users who are active when the server is restarted become idle after it
$node->safe_psql('postgres', q{UPDATE eros.phase SET idle_after = phase * interval '1 day'});
$node->safe_psql('postgres', 'SELECT eros_touch(u) FROM generate_series(51, 57) u');
$users += 7;
for my $time ('first', 'second')
{
	$node->restart;
	polls_to($node, 'postgres', running(), "launcher and scheduler run after a $time restart");
	is(value($node, 'postgres', 'SELECT active_users FROM eros.status'), 7, "active users survive a $time restart");
}
is(value($node, 'postgres', q{SELECT count(*) FROM eros.get_many('gated', ARRAY(SELECT generate_series(51::bigint, 57)))}),
	0, 'and are still active');
soon_idle($node, 'postgres', 2);
polls_to($node, 'postgres', 'SELECT idle_users FROM eros.status', 'then they become idle', 57);
all_done_once('after they have been idle');

# the loss of a process
my %pid_of = (
	launcher => 'SELECT launcher_pid FROM eros.status',
	scheduler => 'SELECT scheduler_pid FROM eros.status',
	worker => q{SELECT pid FROM eros.status_worker WHERE activity = 'computing'});

for my $case ([ 'TERM', 'worker' ], [ 'TERM', 'scheduler' ], [ 'TERM', 'launcher' ],
	[ 'KILL', 'worker' ], [ 'KILL', 'scheduler' ], [ 'KILL', 'launcher' ])
{
	my ($signal, $which) = @$case;
	my $what = $signal eq 'KILL' ? "the crash of a $which" : "the end of a $which";

	new_jobs(5);
	polls_to($node, 'postgres', computing(), 'a worker is at work');
	my $pid = end_process($signal, $pid_of{$which});

	polls_to($node, 'postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid",
		"the process is gone after $what");
	polls_to($node, 'postgres', running(), "launcher and scheduler run after $what");
	is(value($node, 'postgres', 'SELECT count(*) FROM eros.job'), 5, "the jobs are pending after $what");
	all_done_once("after $what");
}

# an immediate shutdown in the middle of the work
new_jobs(100);
open_gate($node, 'postgres', 1);
polls_to($node, 'postgres', 'SELECT count(*) < 90 FROM eros.job', 'some of 100 jobs are done');
$node->stop('immediate');
$node->start;
polls_to($node, 'postgres', running(), 'launcher and scheduler run after an immediate shutdown');
is( value(
		$node, 'postgres', q{
		SELECT count(DISTINCT c.user_id) FROM app.call c
		WHERE eros.get('gated', c.user_id) IS NULL}),
	0,
	'who is noted as done has his result');
all_done_once('after an immediate shutdown');
polls_to($node, 'postgres', 'SELECT status FROM eros.status', 'all is well', 'ok');

$node->stop;
done_testing();
