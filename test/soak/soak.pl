# Everything at once, for MINUTES, from one SEED: touches, failing and slow handlers, kills, restarts,
# DDL, long snapshots, a full cache.  What must always hold is checked all the time.

use strict;
use warnings;

use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $minutes = $ENV{MINUTES} // 5;
my $seed = $ENV{SEED} // int(time) % 1_000_000;
my $users = 500;
my $cap = 50;    # percent of one core
my $node;
my $begun = time;
my (%cpu, %memory, %did, %seen);
my ($used, $starts, $crashes, $checks, $log_at) = (0, 1, 0, 0, 0);
my $next_crash = time + 15;

srand($seed);
$| = 1;
note("soak of $minutes minutes, SEED=$seed");

# Says what happens, with the time since the begin.
sub say_so
{
	my ($what) = @_;

	note(sprintf('%6.1f s  %s', time - $begun, $what));
	return;
}

# Runs SQL, and does not mind when it fails: the server may be down.
sub try_sql
{
	my ($sql, $db) = @_;
	my ($status, $stdout, $stderr) = $node->psql($db // 'postgres', $sql, timeout => 120, timed_out => \my $timed_out);

	ok(0, "a statement has hung for two minutes: $sql") if $timed_out;
	return ($status // 1) == 0 ? $stdout : undef;
}

# Waits until the server answers.
sub wait_for_server
{
	$node->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or BAIL_OUT('the server does not come back');
	return;
}

# A random one of a list.
sub any { return $_[ int rand @_ ]; }

# The pids of EROS's processes of a kind.
sub pids
{
	my ($like) = @_;

	return split /\n/, try_sql("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE '$like'") // '';
}

# Sets up what is worked on: three handlers that note each run in a logged table, in the transaction
# that stores the result; each result names its run.
sub set_up
{
	$node = eros_node('soak', qq{
		eros.workers = 2
		eros.cpu_cores = 1
		eros.cpu_cap = $cap
		eros.cache_limit = 1MB
		eros.retry_delay = 100ms
		eros.retry_delay_max = 2s
		eros.worker_idle_timeout = 1s
		eros.maintenance_interval = 5s
		track_commit_timestamp = on
		restart_after_crash = on
		max_connections = 60
	});
	create_eros($node, 'postgres');
	$node->safe_psql('postgres', q{
		UPDATE eros.phase SET idle_after = phase * phase * interval '1 s', cpu_percent = 30, batch_size = 20;
		CREATE SCHEMA soak;
		CREATE TABLE soak.run (id bigserial PRIMARY KEY, handler text, user_id bigint, began timestamptz);
		CREATE INDEX ON soak.run (handler, user_id);
		CREATE TABLE soak.touch (user_id bigint, before timestamptz, after timestamptz);
		CREATE INDEX ON soak.touch (user_id, before);
		CREATE TABLE soak.crash (at timestamptz);
		CREATE TABLE soak.pending (user_id uuid, handler_id integer, at timestamptz);
		CREATE TABLE soak.input (id integer PRIMARY KEY, factor integer);
		INSERT INTO soak.input VALUES (1, 1);

		CREATE FUNCTION soak.touch(users bigint[]) RETURNS void LANGUAGE plpgsql AS $$
		DECLARE
			before timestamptz := clock_timestamp();
		BEGIN
			PERFORM eros_touch(users);
			INSERT INTO soak.touch SELECT u, before, clock_timestamp() FROM unnest(users) u;
		END $$;

		CREATE FUNCTION soak.work(name text, users bigint[], ms_a_user integer)
		RETURNS TABLE (user_id bigint, value jsonb) LANGUAGE plpgsql AS $$
		DECLARE
			began timestamptz := clock_timestamp();
			factor integer;
		BEGIN
			SELECT i.factor INTO factor FROM soak.input i;
			WHILE clock_timestamp() < began + ms_a_user * cardinality(users) * interval '1 ms' LOOP
			END LOOP;
			RETURN QUERY
				WITH noted AS (
					INSERT INTO soak.run AS r (handler, user_id, began) SELECT name, u, began FROM unnest(users) u
					RETURNING r.id, r.user_id)
				SELECT n.user_id, jsonb_build_object('run', n.id, 'text',
					(SELECT string_agg(md5(n.id::text || g), '') FROM generate_series(1, 60) g)) FROM noted n;
		END $$;
		CREATE FUNCTION soak.good(users bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
			LANGUAGE sql AS $$ SELECT * FROM soak.work('good', users, 1) $$;
		CREATE FUNCTION soak.slow(users bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
			LANGUAGE sql AS $$ SELECT * FROM soak.work('slow', users, 40) $$;
		CREATE FUNCTION soak.failing(users bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
		LANGUAGE plpgsql AS $$
		BEGIN
			IF EXISTS (SELECT FROM unnest(users) u WHERE u % 50 = 0) OR random() < 0.05 THEN
				RAISE EXCEPTION 'this handler fails';
			END IF;
			RETURN QUERY SELECT * FROM soak.work('failing', users, 1);
		END $$;
		SELECT eros.add_handler('good', 'soak.good', phase => 1);
		SELECT eros.add_handler('failing', 'soak.failing', phase => 2, max_attempts => 3);
		SELECT eros.add_handler('slow', 'soak.slow', phase => 3, ttl => '1 hour')});
	return;
}

# Starts what touches and reads all the time, in a process of its own, until the file "stop" is there.
sub start_touching
{
	my $dir = PostgreSQL::Test::Utils::tempdir;
	my $pid;

	append_to_file("$dir/touch.sql", qq{\\set u random(1, $users)
		SELECT soak.touch(ARRAY[:u, 1 + (:u * 7) % $users]);
		SELECT eros.get('good', :u), eros.get('slow', :u);
		\\sleep 100 ms
	});
	defined($pid = fork) or die 'no fork';
	if ($pid == 0)
	{
		my @command = ('pgbench', '-n', '-c', '3', '-T', '5', "--random-seed=$seed", '-f', "$dir/touch.sql", '-h', $node->host,
			'-p', $node->port, 'postgres');

		local $ENV{PGOPTIONS} = '-c synchronous_commit=off';
		open STDOUT, '>', "$dir/out";
		open STDERR, '>', "$dir/err";
		until (-e "$dir/stop")
		{
			sleep 0.3 if system(@command) != 0;
		}
		require POSIX;
		POSIX::_exit(0);
	}
	return ($pid, "$dir/stop");
}

# Ends it.
sub stop_touching
{
	my ($pid, $stop) = @_;

	append_to_file($stop, '');
	waitpid $pid, 0;
	return;
}

# Keeps which jobs are there, durably, before the server goes down: none may be lost.
sub note_jobs
{
	return defined try_sql(q{
		BEGIN; DELETE FROM soak.pending;
		INSERT INTO soak.pending SELECT user_id, handler_id, clock_timestamp() FROM eros.job; COMMIT});
}

# Tests that each of those jobs is there still, has been done, or was taken back by its user's return.
sub find_jobs
{
	my ($when) = @_;
	my $lost = try_sql(q{
		SELECT count(*) FROM soak.pending p JOIN eros.handler h USING (handler_id)
		WHERE NOT EXISTS (SELECT FROM eros.job j WHERE j.user_id = p.user_id AND j.handler_id = p.handler_id)
		  AND NOT EXISTS (SELECT FROM soak.run r WHERE r.handler = h.name AND r.user_id = eros.user_bigint(p.user_id)
				AND pg_xact_commit_timestamp(r.xmin) >= p.at - interval '5 s')
		  AND NOT EXISTS (SELECT FROM soak.touch t WHERE t.user_id = eros.user_bigint(p.user_id)
				AND t.after > p.at - interval '10 s')});

	return if !defined $lost;
	ok($lost eq '0', "no job is lost $when") or diag("$lost jobs are");
	return;
}

# ------------------------------------------------------------------------
# What happens to it
# ------------------------------------------------------------------------

# Has the server crash by killing a process of it.
sub crash
{
	my $victim = any('eros worker', 'eros worker', 'eros scheduler', 'eros launcher', 'client backend');
	my ($pid) = pids($victim);

	return if !$pid || !note_jobs();
	try_sql(q{INSERT INTO soak.crash VALUES (clock_timestamp())});
	kill 9, $pid;
	$crashes++;
	$starts++;
	my $up = 0;
	for (1 .. 100)
	{
		$up = defined try_sql('SELECT 1') && !grep { $_ == $pid } pids('%');
		last if $up;
		sleep 0.1;
	}
	wait_for_server();
	find_jobs("after kill -9 of a process ($victim)");
	return;
}

# Restarts the server.
sub restart
{
	my $mode = any('fast', 'fast', 'immediate');

	return if !note_jobs();
	try_sql(q{INSERT INTO soak.crash VALUES (clock_timestamp())}) if $mode eq 'immediate';
	$node->stop($mode, fail_ok => 1) or ok(0, "a $mode shutdown ends");
	$node->start;
	$starts++;
	wait_for_server();
	find_jobs("after a restart ($mode)");
	return;
}

# Terminates one of EROS's processes, or cancels what it does.
sub terminate
{
	my $what = any('terminate', 'cancel');
	my $victim = any('worker', 'scheduler', 'launcher', '%');

	try_sql("SELECT pg_${what}_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'eros $victim' LIMIT 1");
	return;
}

# DDL on the application's tables and on EROS's.
sub ddl
{
	try_sql(any(
			'ALTER TABLE soak.input ADD COLUMN extra integer; ALTER TABLE soak.input DROP COLUMN extra',
			'VACUUM FULL eros.job', 'VACUUM FULL eros.activity', 'REINDEX TABLE eros.job', 'REINDEX TABLE eros.activity',
			'REINDEX TABLE CONCURRENTLY eros.job', 'TRUNCATE eros.cache', 'VACUUM ANALYZE',
			'CREATE DATABASE copy TEMPLATE postgres',
			'DROP DATABASE IF EXISTS copy', 'DROP DATABASE IF EXISTS copy WITH (FORCE)',
			'CREATE OR REPLACE FUNCTION soak.good(users bigint[]) RETURNS TABLE (user_id bigint, value jsonb)
				LANGUAGE sql AS $$ SELECT * FROM soak.work(\'good\', users, 1) $$'));
	return;
}

# Changes of the configuration, and those of an administrator.
sub configure
{
	try_sql(any(
			q{SELECT eros.pause(), pg_sleep(1), eros.resume()},
			q{SELECT eros.disable_handler('slow'); SELECT eros.enable_handler('slow')},
			q{UPDATE eros.phase SET batch_size = 1 + random() * 40},
			q{SELECT eros.add_handler('extra', 'soak.good', phase => 3); SELECT eros.drop_handler('extra')},
			q{SELECT eros.retry('failing')},
			q{SELECT eros.run_now('good', 7)},
			q{SELECT eros.invalidate('good', 8)},
			q{SELECT eros.sweep()}, q{SELECT eros.purge(), eros.clean_up()}));
	return;
}

# A snapshot that is held for long, in a session that nobody waits for.
my @holders;

sub hold_snapshot
{
	my $in = '';
	my $seconds = 5 + int rand 15;

	return if @holders > 2;
	push @holders, IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
			"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM eros.job; SELECT pg_sleep($seconds); COMMIT" ],
		'<', \$in, '>', \my $out, '2>', \my $err);
	return;
}

# ------------------------------------------------------------------------
# What must hold
# ------------------------------------------------------------------------

# Takes the kernel's figures of EROS's processes: CPU time, and memory of their own.
sub measure
{
	for my $proc (glob '/proc/[0-9]*')
	{
		my ($pid) = $proc =~ /(\d+)$/;
		my ($stat, $status, $line);

		open(my $file, '<', "$proc/cmdline") or next;
		$line = <$file> // '';
		close $file;
		next if $line !~ /^postgres: soak: eros (\w+)/;
		my $kind = $1;
		$stat = eval { slurp_file("$proc/stat") } or next;
		$status = eval { slurp_file("$proc/status") } or next;
		my @fields = split / /, $stat =~ s/^.*\) //sr;
		my $ticks = $fields[11] + $fields[12];
		my ($anon) = $status =~ /^RssAnon:\s*(\d+)/m;

		$used += ($ticks - ($cpu{$pid} // 0)) / 100;
		$cpu{$pid} = $ticks;
		push @{ $memory{"$kind $pid"} }, [ time, $anon ] if defined $anon;
	}
	return;
}

# The value of a query that counts what must not be; 0 when the server is down.
sub none
{
	my ($name, $sql) = @_;
	my $count = try_sql($sql);

	return if !defined $count;
	$checks++;
	return if $count eq '0';
	ok(0, $name);
	diag("$count: $sql");
	return;
}

# Checks what must hold at any time.
sub check
{
	none('no result is stored twice', q{
		SELECT count(*) FROM (SELECT FROM eros.cache GROUP BY handler_id, user_id HAVING count(*) > 1) twice});
	none('each result is of the last run', q{
		SELECT count(*) FROM eros.cache c JOIN eros.handler h USING (handler_id)
		WHERE h.name IN ('failing', 'slow') AND (c.value->>'run')::bigint <> (
			SELECT max(r.id) FROM soak.run r WHERE r.handler = h.name AND r.user_id = eros.user_bigint(c.user_id))});
	none('no run has noted a user twice', q{
		SELECT count(*) FROM (SELECT FROM soak.run r WHERE r.handler <> 'good'
			GROUP BY handler, user_id, r.xmin::text HAVING count(*) > 1) twice});
	none('no user is worked on while he is active', q{
		SELECT count(*) FROM soak.run r JOIN soak.touch t USING (user_id)
		WHERE r.handler <> 'good' AND t.before > clock_timestamp() - interval '2 minutes'
		  AND t.after <= r.began AND r.began < t.before + interval '990 ms'
		  AND NOT EXISTS (SELECT FROM soak.crash c WHERE c.at BETWEEN t.before - interval '1 s' AND r.began)});
	none('no result is stored after its user has returned', q{
		SELECT count(*) FROM soak.run r JOIN soak.touch t USING (user_id)
		WHERE r.handler <> 'good' AND t.before > clock_timestamp() - interval '2 minutes'
		  AND r.began < t.before AND pg_xact_commit_timestamp(r.xmin) > t.after + interval '3 s'});
	none('the cache keeps its limit', q{
		SELECT count(*) FROM eros.status WHERE cache_bytes > 4 * 1024 * 1024});
	none('sizes are bounded', q{
		SELECT count(*) FROM unnest('{eros.job,eros.activity,eros.spilled_touch,eros.history_ring}'::regclass[]) c
		WHERE pg_total_relation_size(c) > 200 * 1024 * 1024});
	none('the status can be read', q{SELECT count(*) - 1 FROM eros.status});
	return;
}

# Tests that the log tells of no crash but those that were made, and does not grow without bound.
sub check_log
{
	my $log = slurp_file($node->logfile);
	my @bad = grep { /PANIC|TRAP|terminated by signal (?!9)|cache lookup failed|could not open relation with OID/ }
		split /\n/, $log;

	is(scalar @bad, 0, 'the log tells of no crash that was not made') or diag(join "\n", @bad[0 .. ($#bad < 9 ? $#bad : 9)]);
	my @lines = grep { / eros / } split /\n/, $log;
	cmp_ok(scalar @lines, '<', 400 * ($minutes + 1), 'EROS has not filled the log') or diag(join "\n", @lines[-20 .. -1]);
	return;
}

# Tests that the CPU share and the memory were held, by the kernel's figures.
sub check_figures
{
	my $elapsed = time - $begun;
	my $worst = 0;

	note(sprintf('%.1f s CPU of EROS in %.0f s: %.1f %% of a core, %d starts of the server', $used, $elapsed, 100 * $used / $elapsed, $starts));
	cmp_ok($used, '<', $elapsed * $cap / 100 * 1.1 + 1.5 * $starts, 'the hard cap was held, by the kernel\'s figures');
	for my $process (keys %memory)
	{
		my @samples = @{ $memory{$process} };
		my $begin = $samples[0][0];
		my @later = grep { $_->[0] > $begin + 20 } @samples;

		next if !@later;
		my $growth = $later[-1][1] - $later[0][1];
		$worst = $growth if $growth > $worst;
		note(sprintf('%s: %d kB after 20 s, %d kB at the end', $process, $later[0][1], $later[-1][1])) if $growth > 4096;
	}
	cmp_ok($worst, '<', 16384, 'the memory of no process has grown');
	return;
}

# Lets all come to rest, and tests that nobody has been forgotten.
sub drain
{
	say_so('drain');
	wait_for_server();
	try_sql('DROP DATABASE IF EXISTS copy WITH (FORCE)');
	$node->safe_psql('postgres', q{
		SELECT eros.resume();
		UPDATE eros.phase SET cpu_percent = 50, batch_size = 20;
		UPDATE soak.input SET factor = 2});
	$node->safe_psql('postgres', 'SELECT ' . join ', ', map { "eros.enable_handler('$_')" } 'good', 'slow', 'failing');
	reload_with($node, 'eros.cpu_cap' => 95);
	$node->safe_psql('postgres', 'TRUNCATE soak.touch');
	$node->safe_psql('postgres', "SELECT soak.touch(ARRAY(SELECT generate_series(1, $users))::bigint[])");
	for my $handler ('good', 'failing', 'slow')
	{
		polls_to($node, 'postgres', qq{
			SELECT count(*) FROM soak.touch t WHERE NOT EXISTS (
				SELECT FROM soak.run r WHERE r.handler = '$handler' AND r.user_id = t.user_id AND r.began > t.before)
			  AND NOT EXISTS (SELECT FROM eros.job j JOIN eros.handler h USING (handler_id)
				WHERE h.name = '$handler' AND j.user_id = eros.user_key(t.user_id) AND j.status = 'failed')},
			"handler $handler has run for every user, or has failed for him", 0);
	}
	polls_to($node, 'postgres', q{SELECT count(*) FROM eros.job WHERE status = 'pending'}, 'no job is left', 0);
	polls_to($node, 'postgres', running(), 'EROS runs');
	is(value($node, 'postgres', 'SELECT count(*) FROM pg_locks WHERE locktype = \'advisory\''), 0, 'no advisory lock is left');
	is(value($node, 'postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 0, 'and no prepared transaction');
	is( value($node, 'postgres', q{SELECT jobs_pending || ' ' || jobs_failed FROM eros.status}),
		value($node, 'postgres', q{SELECT count(*) FILTER (WHERE status = 'pending') || ' ' || count(*) FILTER (WHERE status = 'failed') FROM eros.job}),
		'what is counted is what is there');
	return;
}

set_up();
my @touching = start_touching();
my @happenings = ((\&terminate) x 2, (\&ddl) x 3, (\&configure) x 2, \&hold_snapshot);
my %name = (\&terminate => 'terminate', \&ddl => 'ddl', \&configure => 'configure', \&hold_snapshot => 'hold');
my $next_check = time + 5;

while (time - $begun < $minutes * 60)
{
	measure();
	if (time > $next_crash)
	{
		any(\&crash, \&restart)->();
		$next_crash = time + 10 + rand 20;
		say_so("$crashes crashes, $starts starts, $checks checks, " . (try_sql('SELECT count(*) FROM soak.run') // '?') . ' runs');
	}
	else
	{
		any(@happenings)->();
	}
	if (time > $next_check)
	{
		check();
		$next_check = time + 5;
	}
	@holders = grep { $_->pumpable } @holders;
	for (1 .. 1 + int rand 6)
	{
		measure();
		sleep 0.25;
	}
}
stop_touching(@touching);
$_->kill_kill for @holders;
check();
check_figures();
drain();
check();
check_log();
cmp_ok($checks, '>', 10, "the invariants were checked $checks times");
cmp_ok(value($node, 'postgres', 'SELECT count(*) FROM soak.run'), '>', 100, 'much was done');
$node->stop;
note("SEED=$seed");
done_testing();
