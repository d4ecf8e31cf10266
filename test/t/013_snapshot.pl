# The logged snapshot: after a crash or a promotion the users are back, idle and active; nothing that
# is fresh is computed again, no job is there twice.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = eros_node('primary', "eros.maintenance_interval = 1s\nwal_level = replica\n", allows_streaming => 1);

my $seen = q{SELECT md5(string_agg(user_id || ' ' || last_seen, ',' ORDER BY user_id)) FROM eros.activity
	WHERE user_id <> ALL (ARRAY(SELECT eros.user_key(u) FROM generate_series(1, 7) u))};

# Touches users, and waits until the snapshot has that.
sub touch_and_save
{
	my ($node, $users, $name) = @_;
	my $since = value($node, 'postgres', "SELECT eros.now() FROM eros_touch(ARRAY(SELECT unnest($users)::bigint))");

	return polls_to($node, 'postgres', "SELECT max(upper) >= '$since' FROM eros.snapshot", $name);
}

# 3000 users who are idle and have their result, a uuid user among the idle; and seven who are active
create_eros($primary, 'postgres');
soon_idle($primary, 'postgres', 1000);
gated_handler($primary, 'postgres');
$primary->safe_psql('postgres', 'SELECT eros_touch(ARRAY(SELECT generate_series(-10::bigint, 2988)))');
$primary->safe_psql('postgres', q{SELECT eros_touch('6f1b2a9e-0c6f-4f55-9a51-8f5b5f3c9b1a'::uuid)});
polls_to($primary, 'postgres', 'SELECT count(*) FROM app.call', 'everybody has his result', 2999);
polls_to($primary, 'postgres', 'SELECT idle_users FROM eros.status', 'and is idle', 3000);
reload_with($primary, 'eros.workers' => 0);
$primary->safe_psql('postgres', q{UPDATE eros.phase SET idle_after = phase * interval '1 hour'});
touch_and_save($primary, "'{1,2,3,4,5,6,7}'::int[]", 'seven are back, and in the snapshot');
polls_to($primary, 'postgres', 'SELECT idle_users, active_users FROM eros.status', 'they are active', '2993|7');
my $idle = value($primary, 'postgres', $seen);

# it writes what has changed only
touch_and_save($primary, 'ARRAY[7]', 'it is refreshed after a touch');
is( value($primary, 'postgres', q{SELECT users FROM eros.snapshot ORDER BY upper DESC LIMIT 1}),
	1, 'of which only that touch is new');

# a standby that takes over
my $standby = PostgreSQL::Test::Cluster->new('standby');
$primary->backup('backup');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

# a crash: the idle users are lost with the unlogged table, the active ones with the shared memory
on_disk($primary, 'postgres');
$primary->stop('immediate');
unlink $primary->data_dir . '/pg_stat/eros.active';
$primary->start;
polls_to($primary, 'postgres', 'SELECT idle_users + active_users FROM eros.status', 'after a crash all are back', 3000);

# they are idle for long enough: the handler has nothing to do for those who have their result
$primary->safe_psql('postgres', q{UPDATE eros.phase SET idle_after = CASE phase WHEN 1 THEN interval '100 ms' ELSE phase * interval '1 day' END});
polls_to($primary, 'postgres', 'SELECT idle_users FROM eros.status', 'and are idle', 3000);
is(value($primary, 'postgres', 'SELECT sum(users) FROM eros.status_phase'), 3000, 'and are counted');
is(value($primary, 'postgres', $seen), $idle, 'as of when they were last seen');
reload_with($primary, 'eros.workers' => 1);
polls_to($primary, 'postgres', q{SELECT count(*) FROM app.call WHERE user_id BETWEEN 1 AND 7}, 'those who had been active get a new result', 14);
polls_to($primary, 'postgres', 'SELECT count(*) FROM eros.job', 'no job is left', 0);
is(value($primary, 'postgres', 'SELECT count(*) FROM app.call'), 2999 + 7, 'nobody else was computed again');

# a crash of one process is a crash of the server
for my $which ('a backend', 'a scheduler', 'a backend in the middle of touches')
{
	my ($touches, $out, $err);

	touch_and_save($primary, 'ARRAY[5000]', 'somebody comes, and is in the snapshot');
	polls_to($primary, 'postgres', 'SELECT idle_users FROM eros.status', 'and becomes idle', 3001);
	on_disk($primary, 'postgres');
	reload_with($primary, 'restart_after_crash' => 'on');
	my $pid = value($primary, 'postgres', 'SELECT scheduler_pid FROM eros.status');
	my $session = open_session($primary, 'postgres');
	$pid = in_session($session, 'SELECT pg_backend_pid()') if $which eq 'a backend';
	if ($which =~ /touches/)
	{
		my $touching = q{SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT count(eros_touch(5000))%' AND state = 'active'};

		$touches = IPC::Run::start(
			[ 'psql', '-X', '-d', $primary->connstr('postgres'), '-c', 'SELECT count(eros_touch(5000)) FROM (SELECT generate_series(1, 1000000000)) s' ],
			'>', \$out, '2>', \$err);
		polls_to($primary, 'postgres', "SELECT count(*) FROM ($touching) t", 'a backend begins to touch', 1);
		polls_to($primary, 'postgres', 'SELECT active_users > 0 FROM eros.status', 'and touches and touches');
		$pid = value($primary, 'postgres', $touching);
	}
	chomp $pid;
	PostgreSQL::Test::Utils::system_log('pg_ctl', 'kill', 'KILL', $pid);
	eval { close_session($session) };
	$touches->finish if defined $touches;
	polls_to($primary, 'postgres', 'SELECT idle_users FROM eros.status', "all are back after the crash of $which", 3001);
}
is(value($primary, 'postgres', q{SELECT string_agg(user_id::text, ', ') FROM (
		SELECT user_id FROM app.call WHERE user_id NOT BETWEEN 1 AND 7 GROUP BY 1 HAVING count(*) > 1) c}),
	5000, 'computed again was only who had been touched again');

# many refreshes leave few chunks
for my $i (1 .. 20)
{
	touch_and_save($primary, "ARRAY[6000 + $i]", "chunk $i");
}
polls_to($primary, 'postgres', 'SELECT count(*) <= 20 FROM eros.snapshot', 'small chunks are put together');

# nothing to do, nothing written
polls_to($primary, 'postgres', "SELECT last_maintenance > timestamptz '"
	. value($primary, 'postgres', 'SELECT last_maintenance FROM eros.status') . "' + interval '3 s' FROM eros.status", 'nobody comes for a while');
my $wal = value($primary, 'postgres', 'SELECT xmin::text FROM eros.snapshot ORDER BY upper DESC LIMIT 1');
my $sweeps = value($primary, 'postgres', 'SELECT last_maintenance FROM eros.status');
polls_to($primary, 'postgres', "SELECT last_maintenance > timestamptz '$sweeps' + interval '3 s' FROM eros.status", 'some intervals pass');
is(value($primary, 'postgres', 'SELECT xmin::text FROM eros.snapshot ORDER BY upper DESC LIMIT 1'), $wal, 'nothing is written while nobody comes');

# the promotion
$primary->wait_for_catchup($standby, 'replay');
$primary->stop('immediate');
is(value($standby, 'postgres', 'SELECT count(*) > 0 FROM eros.snapshot'), 't', 'the standby has the snapshot');
$standby->promote;
polls_to($standby, 'postgres', 'SELECT idle_users FROM eros.status', 'after the promotion the idle users are back', 3021);
polls_to($standby, 'postgres', 'SELECT count(*) FROM eros.job', 'no job is left', 0);
is(value($standby, 'postgres', 'SELECT count(*) FROM (SELECT user_id FROM app.call WHERE user_id <> 5000 GROUP BY 1 HAVING count(*) > 2) c'),
	0, 'nobody was computed for no reason');
like(slurp_file($standby->logfile), qr/EROS has restored \d+ users from the snapshot/, 'the log says so');

# an emptied table stays empty, over a restart and over a crash: only what the server has emptied is restored
for my $mode ('immediate', 'fast')
{
	$standby->safe_psql('postgres', 'TRUNCATE eros.activity');
	on_disk($standby, 'postgres');
	$standby->stop($mode);
	$standby->start;
	polls_to($standby, 'postgres', running(), "EROS runs after a restart ($mode)");
	is(value($standby, 'postgres', 'SELECT count(*) FROM eros.activity'), 0, 'what an administrator has emptied stays so');
}
$standby->stop;
done_testing();
